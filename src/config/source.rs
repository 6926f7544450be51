//! Sources of options, and how each spells them.

/// Prefix of the environment variables.
pub(super) const ENVIRONMENT_PREFIX: &str = "TABLECAST_";

/// The section of a file that contains the options, if a program keeps its own in the same file.
pub(super) const SECTION: &str = "tablecast";

/// Source of a value, for errors.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Source<'a> {
    /// The TOML file of this name.
    File(&'a str),
    /// An environment variable.
    Environment,
    /// A flag of the command line.
    Flag,
    /// The program.
    Program,
}

impl Source<'_> {
    /// The option's name as this source spells it.
    pub(super) fn spell(self, name: &str) -> String {
        match self {
            Source::File(_) | Source::Program => name.to_owned(),
            Source::Environment => format!("{ENVIRONMENT_PREFIX}{}", name.to_ascii_uppercase()),
            Source::Flag => format!("--{}", name.replace('_', "-")),
        }
    }

    /// The option's name, spelled like this, with its source.
    pub(super) fn describe(self, spelled: &str) -> String {
        match self {
            Source::File(file) => format!("option {spelled} in file {file}"),
            Source::Environment => format!("environment variable {spelled}"),
            Source::Flag => format!("flag {spelled}"),
            Source::Program => format!("option {spelled}"),
        }
    }
}
