//! The command-line tool: results go to stdout, all else to stderr.
//!
//! Exit code 0 means done, 1 that it failed, 2 wrong usage.

mod args;
mod cli;
mod config;
mod db;
mod generate;
mod held_log;
mod input;
mod keygen;
mod line;
mod listen;
mod members;
mod metrics;
mod notify;
mod options;
mod outgoing;
mod output;
mod publish;
mod replica;
mod row;
mod seat;
mod service;
mod shared;
mod signal;
mod status;
mod supervisor;
mod terminal;
mod top;
mod trials;
mod watch;
mod work;

use std::process::ExitCode;

use rustix::process::{Resource, getrlimit, setrlimit};
use tablecast::{Error, ErrorKind, Result};

use clap::CommandFactory;
use cli::{Cli, Command};
use trials::{demo, stage, storm};

fn main() -> ExitCode {
    let done = match Cli::read(std::env::args_os()) {
        Ok(cli) => {
            output::init_log(cli.verbose, matches!(cli.command, Command::Top(_)));
            raise_limit_of_open_files();
            run(&cli)
        }
        Err(usage) => output::usage(&usage).map(|()| ExitCode::from(if usage.use_stderr() { 2 } else { 0 })),
    };
    match done {
        Ok(code) => code,
        // The reader of stdout has seen enough.
        Err(e) if output::is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            output::say(&format!("tablecast: error: {e}"));
            ExitCode::from(match e.kind() {
                ErrorKind::Config | ErrorKind::InvalidInput => 2,
                _ => 1,
            })
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    if matches!(cli.command, Command::Publish(_) | Command::Notify(_) | Command::Db(_)) && cli.flag("topics").is_some()
    {
        let context = "--topics is for commands that subscribe; the topic of an update or a row is --topic";
        return Err(Error::new(ErrorKind::InvalidInput, context));
    }
    match &cli.command {
        Command::Service(args) => service::run(&cli.config(&[])?, args)?,
        Command::Publish(args) => publish::run(cli.config(publish::DEFAULTS)?, args)?,
        Command::Watch(args) => watch::run(cli.config(watch::DEFAULTS)?, args)?,
        Command::Replica(args) => replica::run(cli.config(watch::DEFAULTS)?, args)?,
        Command::Status(args) => status::run(cli.config(&[])?, args)?,
        Command::Top(args) => top::run(cli.config(&[])?, args)?,
        Command::Publishers(args) => {
            let config = cli.config(&[])?;
            members::run_publishers(&config, args).map_err(|e| output::about_store(&config, e))?;
        }
        Command::Listeners(args) => {
            let config = cli.config(&[])?;
            members::run_listeners(&config, args).map_err(|e| output::about_store(&config, e))?;
        }
        Command::Listen(args) => listen::run(cli.config(watch::DEFAULTS)?, args)?,
        Command::Notify(args) => notify::run(cli.config(publish::DEFAULTS)?, args)?,
        Command::Config(args) => {
            let (config, sources) = cli.config_and_sources(&[])?;
            config::run(&config, args, &sources)?;
        }
        Command::Completions(args) => generate::run_completions(args, Cli::full_command())?,
        Command::Man(args) => generate::run_man(args, Cli::command(), Cli::full_command())?,
        Command::Keygen(args) => keygen::run(args)?,
        Command::Db(args) => {
            let config = cli.config(db::DEFAULTS)?;
            db::run(&config, args).map_err(|e| output::about_store(&config, e))?;
        }
        Command::Demo(args) => {
            return demo::run(&cli.config(&[])?, args, flags(cli), &signal::channel(stage::GRACE)?);
        }
        Command::Storm(args) => {
            return storm::run(&cli.config(&[])?, args, flags(cli), &signal::channel(stage::GRACE)?);
        }
        Command::StormListener(args) => {
            signal::ignore()?;
            storm::run_listener(cli.config(&[])?, args)?;
        }
        Command::DemoService => {
            signal::ignore()?;
            service::run_for_command(&cli.config(&[])?)?;
        }
        Command::DemoWriter(args) => {
            signal::ignore()?;
            demo::run_writer(&cli.config(&[])?, args)?;
        }
        Command::OwnRedis(args) => {
            signal::ignore()?;
            stage::run_redis(args)?;
        }
        Command::DemoSubscriber(args) => {
            signal::ignore()?;
            demo::run_subscriber(&cli.config(&[])?, args)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes what the system allows: the limit of 1,024 that processes begin with is for programs that use `select`. Without success
/// it stays as it is, and the limit is kept.
fn raise_limit_of_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        log::debug!("cannot raise the limit of open files: {e}");
    }
}

/// The base of a command that starts processes.
fn flags(cli: &Cli) -> stage::Flags<'_> {
    stage::Flags {
        driver: cli.flag("pub_sub_driver"),
        store: cli.flag("nb_db_class"),
    }
}
