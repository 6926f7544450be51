//! The command line: the subcommands, and a flag for every option of the library.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use tablecast::config::Source;
use tablecast::drivers::zmq::libzmq;
use tablecast::{Config, Result};

use crate::trials::{demo, stage, storm};
use crate::{
    args, config, db, generate, keygen, listen, members, notify, options, publish, replica, service, status, top, watch,
};

/// The subject of what all commands have.
const COMMON: &str = "Common options";

static VERSION: LazyLock<String> = LazyLock::new(|| format!("{}, libzmq {}", env!("CARGO_PKG_VERSION"), libzmq()));

/// Notifies every interested process when a row of a database table changes.
///
/// Results go to stdout, diagnostics to stderr. The exit code is 0 for success, 1 for a failure, 2 for wrong usage.
#[derive(Debug, Parser)]
#[command(name = "tablecast", version = VERSION.as_str(), arg_required_else_help = true, disable_help_flag = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Read options from this TOML file; the environment (TABLECAST_*) and flags override it.
    #[arg(long, value_name = "FILE", global = true, help_heading = COMMON, value_parser = args::path())]
    config: Option<PathBuf>,
    /// Log more to stderr; -vv logs even more. The environment variable RUST_LOG overrides this.
    #[arg(short, long, action = ArgAction::Count, global = true, help_heading = COMMON)]
    pub(crate) verbose: u8,
    /// Print help: -h what the command needs, --help all.
    #[arg(short, long, action = ArgAction::Help, global = true, help_heading = COMMON)]
    help: Option<bool>,
    /// The options that were given as flags.
    #[arg(skip)]
    flags: Vec<(&'static str, String)>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Service(service::Args),
    Publish(publish::Args),
    Watch(watch::Args),
    Replica(replica::Args),
    Status(status::Args),
    Top(top::Args),
    /// Print the publishers that are registered in the store, and whether they are alive.
    ///
    /// Connects to each publisher, and watches whether it renews its registration. A publisher that cannot be reached
    /// within 3 s is shown as `not reached`. The command removes no row: the subscribers that follow the publishers
    /// remove the rows of those that are gone.
    Publishers(members::Args),
    /// Print the listeners of status updates that are registered in the store, whether they are alive, and their load.
    ///
    /// Watches until each listener was seen to renew its registration, or long enough to know that it does not. The
    /// command changes nothing: the other listeners and the nodes remove the rows of those that are gone.
    Listeners(members::Args),
    Listen(listen::Args),
    Notify(notify::Args),
    Db(db::Args),
    Config(config::Args),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
    Keygen(keygen::Args),
    Demo(demo::Args),
    Storm(storm::Args),
    #[command(hide = true)]
    StormListener(storm::ListenerArgs),
    #[command(hide = true)]
    DemoService,
    #[command(hide = true)]
    DemoWriter(demo::WriterArgs),
    #[command(hide = true)]
    OwnRedis(stage::RedisArgs),
    #[command(hide = true)]
    DemoSubscriber(demo::SubscriberArgs),
}

impl Cli {
    /// The command line with the flags of all options.
    pub(crate) fn full_command() -> clap::Command {
        let command = Cli::command().args(Config::options().iter().map(options::flag));
        options::fitted(command, "")
    }

    /// Reads a command line, which begins with the name of the program.
    pub(crate) fn read(args: impl IntoIterator<Item = OsString>) -> std::result::Result<Cli, clap::Error> {
        let args: Vec<OsString> = args.into_iter().collect();
        let matches = Cli::full_command().try_get_matches_from(&args);
        let matches = matches.map_err(|e| suggested(&args).unwrap_or(e))?;
        let mut cli = Cli::from_arg_matches(&matches)?;
        let given = Config::options()
            .iter()
            .map(|option| (option.name, matches.get_one::<String>(option.name)));
        cli.flags = given.filter_map(|(name, value)| Some((name, value?.clone()))).collect();
        Ok(cli)
    }

    /// The value that an option was given as a flag.
    pub(crate) fn flag(&self, option: &str) -> Option<&str> {
        let given = self.flags.iter().find(|(name, _)| *name == option);
        given.map(|(_, value)| value.as_str())
    }

    /// The options; `defaults` apply to those that are not set.
    pub(crate) fn config(&self, defaults: &[(&str, &str)]) -> Result<Config> {
        Ok(self.config_and_sources(defaults)?.0)
    }

    /// The options, and what sets them, at once: some files, such as pipes, can be read only once.
    pub(crate) fn config_and_sources(&self, defaults: &[(&str, &str)]) -> Result<(Config, config::Sources<'_>)> {
        let mut config = Config::default();
        for (name, value) in defaults {
            config.set(name, value, Source::Program)?;
        }
        let file = self.config.as_deref();
        let in_file = file.map_or(Ok(Vec::new()), |file| config.apply_file(file))?;
        let flags = self.flags.iter().map(|(name, value)| (*name, value.as_str()));
        let sources = config::Sources {
            file,
            in_file,
            flags: self.flags.iter().map(|(name, _)| *name).collect(),
        };
        Ok((config.loaded(None, flags)?, sources))
    }
}

/// The error of `help` about a command that there is not, as that command's own error: it has a suggestion.
fn suggested(args: &[OsString]) -> Option<clap::Error> {
    let (program, rest) = args.split_first()?;
    let named = rest.strip_prefix(&[OsString::from("help")])?;
    let read = Cli::full_command().try_get_matches_from(std::iter::once(program).chain(named));
    read.err()
        .filter(|e| e.kind() == clap::error::ErrorKind::InvalidSubcommand)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn linger(args: &[&str]) -> u128 {
        let args = [&["tablecast", "service"], args].concat();
        let cli = Cli::read(args.into_iter().map(OsString::from)).unwrap();
        cli.config(&[("linger_ms", "10000")]).unwrap().linger_ms.as_millis()
    }

    #[test]
    fn a_default_gives_way_to_what_was_set() {
        assert_eq!(linger(&[]), 10_000);
        // Also where that is what the library would do.
        assert_eq!(linger(&["--linger-ms", "500"]), 500);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tablecast.toml");
        fs::write(&file, "linger_ms = 500").unwrap();
        assert_eq!(linger(&["--config", file.to_str().unwrap()]), 500);
        fs::write(&file, "publisher_port = 1").unwrap();
        assert_eq!(linger(&["--config", file.to_str().unwrap()]), 10_000);
    }
}
