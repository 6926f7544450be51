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
pub(crate) fn run_completions(args: &CompletionsArgs, command: Command) -> Result<()> {
    let mut script = Vec::new();
    // Hidden commands would be offered too.
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let mut command = Command::new("tablecast")
        .version(env!("CARGO_PKG_VERSION"))
        // It is among the arguments.
        .disable_help_flag(true)
        .args(command.get_arguments())
        .subcommands(shown);
    clap_complete::generate(args.shell, &mut command, "tablecast", &mut script);
    output::stdout().write_all(&script).map_err(output::failed)
}

/// Writes the pages. The options of the library stand only on the page of `full`, the command itself.
pub(crate) fn run_man(args: &ManArgs, command: Command, full: Command) -> Result<()> {
    let folder = &args.folder;
    let write = || {
        fs::create_dir_all(folder)?;
        // Other pages may be there.
        let place = tempfile::tempdir_in(folder)?;
        clap_mangen::generate_to(command, &place)?;
        Man::new(full.disable_help_subcommand(true)).generate_to(&place)?;
        end_pages(place.path(), folder)
    };
    let failed = |e| {
        let context = format!("cannot write the manual pages into {}", folder.display());
        Error::new(ErrorKind::Io, context).with_source(e)
    };
    write().map_err(failed)
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

/// Moves the pages from one folder to another, and ends them.
fn end_pages(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = Vec::new();
    for page in fs::read_dir(from)? {
        let file = page?.file_name().to_string_lossy().into_owned();
        names.extend(file.strip_suffix(".1").map(str::to_owned));
    }
    names.sort_unstable();
    for name in &names {
        let others = names.iter().filter(|other| match &**name {
            "tablecast" => *other != name,
            _ => *other == "tablecast",
        });
        let others: Vec<String> = others.map(|other| format!(".BR {other} (1)")).collect();
        let page = fs::read_to_string(from.join(format!("{name}.1")))?;
        fs::write(
            to.join(format!("{name}.1")),
            format!("{page}{END}{}\n", others.join(" ,\n")),
        )?;
    }
    Ok(())
}
