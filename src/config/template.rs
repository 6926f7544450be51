//! A file of options to begin with.

use std::fmt::Write;

use super::options::{Config, OPTIONS, OptionDoc};

impl Config {
    /// A TOML file in which every option stands as a comment with its meaning and its default.
    pub fn template() -> String {
        let mut text =
            "# Options of tablecast. The environment (TABLECAST_*) and flags override this file.\n".to_owned();
        for option in OPTIONS {
            let OptionDoc { name, doc, accepts, .. } = option;
            let unit = match option.unit {
                "" => String::new(),
                unit => format!(" In {unit}."),
            };
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "\n# {doc}{unit} Accepts {accepts}.\n#{name} = {}\n",
                value(option)
            );
        }
        text
    }
}

/// The default as it stands in a file.
fn value(option: &OptionDoc) -> String {
    match option.toml_type {
        "string" => format!("{:?}", option.default),
        "array" => {
            let items = option.default.split(',').filter(|item| !item.is_empty());
            format!("{:?}", items.collect::<Vec<_>>())
        }
        _ => option.default.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_has_every_option_with_its_default() {
        let text = Config::template();
        assert_eq!(Config::from_toml(&text, "comments").unwrap(), Config::default());
        let is_setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ");
        let settings: Vec<_> = text.lines().filter(is_setting).map(|line| &line[1..]).collect();
        assert_eq!(settings.len(), OPTIONS.len());
        // The value of an environment variable may be missing here.
        let settings: Vec<_> = settings.into_iter().filter(|line| !line.contains('$')).collect();
        assert_eq!(
            Config::from_toml(&settings.join("\n"), "template").unwrap(),
            Config::default()
        );
    }
}
