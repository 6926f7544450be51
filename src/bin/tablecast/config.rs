//! `tablecast config`: the options in force.

use std::path::Path;

use serde::Serialize;
use tablecast::config::OptionDoc;
use tablecast::{Config, Error, ErrorKind, Result};

use crate::output;
use crate::terminal::{FormatArgs, Kind};

/// Print every option in force, and where its value comes from.
///
/// Passwords are not shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print only options that a file, the environment or a flag sets.
    #[arg(long)]
    set: bool,
    /// Print a configuration file in which every option is commented out, with its default.
    #[arg(long, conflicts_with_all = ["set", "format"])]
    template: bool,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    option: &'a str,
    value: &'a str,
    unit: &'a str,
    source: &'a str,
}

/// Prints the options; `flags` are those that were given as flags, `file` was read.
pub(crate) fn run(config: &Config, args: &Args, file: Option<&Path>, flags: &[&str]) -> Result<()> {
    if args.template {
        return output::result(Config::template().trim_end());
    }
    let in_file = match file {
        None => Vec::new(),
        Some(file) => names_in(file)?,
    };
    let mut settings = Vec::new();
    for option in Config::options() {
        let source = source(option, file, &in_file, flags);
        if !args.set || source != DEFAULT {
            settings.push((option, config.get(option.name).unwrap_or_default(), source));
        }
    }
    let Some(mut columns) = args.format.columns() else {
        return settings.iter().try_for_each(|(option, value, source)| {
            let line = Line {
                option: option.name,
                value,
                unit: option.unit,
                source,
            };
            output::result(&serde_json::to_string(&line).map_err(|e| output::failed(e.into()))?)
        });
    };
    let head = ["option", "value", "unit", "source"];
    let cells = settings.iter().map(|(option, value, source)| {
        let shown = if value.is_empty() { "(empty)" } else { value };
        [option.name, shown, option.unit, source]
    });
    columns.fit(&head);
    cells.clone().for_each(|cells| columns.fit(&cells));
    output::result(&columns.line(Kind::Head, &head))?;
    for cells in cells {
        let kind = if cells[3] == DEFAULT {
            Kind::Plain
        } else {
            Kind::Changed
        };
        output::result(&columns.line(kind, &cells))?;
    }
    Ok(())
}

const DEFAULT: &str = "default";

/// The last source that sets the option.
fn source(option: &OptionDoc, file: Option<&Path>, in_file: &[&str], flags: &[&str]) -> String {
    let variable = option.variable();
    match file {
        _ if flags.contains(&option.name) => format!("flag --{}", option.flag()),
        _ if std::env::var_os(&variable).is_some() => format!("environment {variable}"),
        Some(file) if in_file.contains(&option.name) => format!("file {}", file.display()),
        _ => DEFAULT.into(),
    }
}

fn names_in(file: &Path) -> Result<Vec<&'static str>> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|e| Error::new(ErrorKind::Io, format!("cannot read the options from file {name}")).with_source(e))?;
    Config::names_in_toml(&text, &name)
}
