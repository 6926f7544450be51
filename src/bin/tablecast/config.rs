//! `tablecast config`: the options in force.

use std::path::Path;

use serde::Serialize;
use tablecast::config::OptionDoc;
use tablecast::{Config, Result};

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

/// What sets options: the file with the names in it, and the names of the flags.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) file: Option<&'a Path>,
    pub(crate) in_file: Vec<&'static str>,
    pub(crate) flags: Vec<&'static str>,
}

/// Prints the options.
pub(crate) fn run(config: &Config, args: &Args, sources: &Sources<'_>) -> Result<()> {
    if args.template {
        return output::result(Config::template().trim_end());
    }
    let mut settings = Vec::new();
    for option in Config::options() {
        let source = sources.last(option);
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

impl Sources<'_> {
    /// The last that sets the option.
    fn last(&self, option: &OptionDoc) -> String {
        let variable = option.variable();
        match self.file {
            _ if self.flags.contains(&option.name) => format!("flag --{}", option.flag()),
            _ if std::env::var_os(&variable).is_some() => format!("environment {variable}"),
            Some(file) if self.in_file.contains(&option.name) => format!("file {}", file.display()),
            _ => DEFAULT.into(),
        }
    }
}
