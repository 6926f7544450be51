//! `tablecast completions` and `tablecast man`: files for packages, from the command line itself.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use tablecast::{Error, ErrorKind, Result};

use crate::{args, output};

/// Print the completions of this command line for a shell.
///
/// For example, in bash: source <(tablecast completions bash)
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Write the manual pages into a folder, one for each command: tablecast.1, tablecast-watch.1 and so on.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// The folder; it is made if it is not there.
    #[arg(value_name = "FOLDER", value_parser = args::path())]
    folder: PathBuf,
}

/// Prints the completions.
pub(crate) fn run_completions(args: &CompletionsArgs, mut command: Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "tablecast", &mut script);
    output::stdout().write_all(&script).map_err(output::failed)
}

/// Writes the pages. The options of the library stand only on the page of `full`, the command itself.
pub(crate) fn run_man(args: &ManArgs, command: Command, full: Command) -> Result<()> {
    let folder = &args.folder;
    let written = fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .and_then(|()| Man::new(full.disable_help_subcommand(true)).generate_to(folder))
        .and_then(|_| end_pages(folder));
    let failed = |e| {
        let context = format!("cannot write the manual pages into {}", folder.display());
        Error::new(ErrorKind::Io, context).with_source(e)
    };
    written.map_err(failed)
}

/// What stands at the end of each page.
const END: &str = r#".SH "EXIT STATUS"
0 for success, 1 for a failure, 2 for wrong usage.
.SH FILES
.TP
/etc/tablecast/tablecast.toml
The options of this host's publisher service, where a package installed it; other commands read it with \-\-config.
.SH "SEE ALSO"
"#;

fn end_pages(folder: &Path) -> io::Result<()> {
    let pages: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    let mut names: Vec<&str> = pages.iter().filter_map(|page| name(page)).collect();
    names.sort_unstable();
    for page in &pages {
        let Some(name) = name(page) else { continue };
        let others = names.iter().filter(|other| match name {
            "tablecast" => **other != name,
            _ => **other == "tablecast",
        });
        let others: Vec<String> = others.map(|other| format!(".BR {other} (1)")).collect();
        let mut page = fs::File::options().append(true).open(page)?;
        writeln!(page, "{END}{}", others.join(" ,\n"))?;
    }
    Ok(())
}

/// The name of the command of a page.
fn name(page: &Path) -> Option<&str> {
    let is_page = page.extension().is_some_and(|section| section == "1");
    page.file_stem()?
        .to_str()
        .filter(|name| is_page && name.starts_with("tablecast"))
}
