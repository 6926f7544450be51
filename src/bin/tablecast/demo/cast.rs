//! The processes of the demo: they are started together, and none is left when their handle is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, select};
use tablecast::{Error, ErrorKind, Result, Stores};
use tempfile::TempDir;

use super::Args;
use super::process::{Heard, Process, Who};
use super::protocol::{self, Order, Report};
use super::redis::RedisArgs;
use super::setup::{Choice, Driver, Redis, Setup, Store, config_of};
use super::subscriber::SubscriberArgs;
use super::writer::WriterArgs;

/// The writers and the subscribers, and what is between them.
#[derive(Debug)]
pub(super) struct Cast {
    // Fields drop in order: the folder goes last.
    writers: Vec<Process>,
    subscribers: Vec<Process>,
    /// The publisher service, or a Redis server, or both.
    servers: Vec<Process>,
    /// How a process finds the store.
    store: Vec<Choice>,
    ears: Ears,
    _folder: TempDir,
}

/// Hears the children and the user.
#[derive(Debug)]
struct Ears {
    heard: Receiver<Heard>,
    signals: Receiver<()>,
}

/// How long a child may take to begin, and to end.
const START: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(2);

impl Cast {
    /// Starts the processes, with subscribers of these topics; returns when nothing can be missed any more.
    pub(super) fn start(setup: &Setup, args: &Args, topics: &[Vec<String>], signals: &Receiver<()>) -> Result<Cast> {
        let (sender, heard) = crossbeam_channel::unbounded();
        let ears = Ears {
            heard,
            signals: signals.clone(),
        };
        let folder = folder()?;
        let deadline = Instant::now() + START;
        let mut servers = Vec::new();
        let mut common = setup.common.clone();
        match &setup.redis {
            None => {}
            Some(Redis::Running(options)) => common.extend_from_slice(options),
            Some(Redis::Own(program)) => {
                let arguments = RedisArgs::command_line(program, folder.path());
                servers.push(Process::start(Who::Redis, &arguments, &[], sender.clone())?);
                common.push(("remote_db_hosts", ears.ready(Who::Redis, deadline)?));
            }
        }
        let (mut to_send, mut to_listen) = (common.clone(), common.clone());
        match setup.driver {
            Driver::Redis => {
                let choice = [
                    ("pub_sub_driver", "redis".into()),
                    ("pub_sub_use_multiproc", "false".into()),
                ];
                to_send.extend_from_slice(&choice);
                to_listen.extend_from_slice(&choice);
            }
            Driver::Zmq => {
                let socket = folder.path().join("publisher.sock").display().to_string();
                to_send.push(("publisher_multiproc_socket", socket));
                let options = [&to_send[..], &[("publisher_port", "0".into())]].concat();
                servers.push(Process::start(
                    Who::Service,
                    &["service".into()],
                    &options,
                    sender.clone(),
                )?);
                to_listen.push(("publishers", ears.ready(Who::Service, deadline)?));
            }
        }
        let mut store = common;
        match setup.store {
            None => {}
            Some(Store::Redis) => store.push(("nb_db_class", "redis".into())),
            Some(Store::Sqlite) => {
                let file = folder.path().join("rows.db").display().to_string();
                store.extend([("nb_db_class", "sqlite".into()), ("sqlite_path", file)]);
            }
        }
        to_send.extend_from_slice(&store);
        let patience = || "10000".to_owned();
        to_send.extend([("send_timeout_ms", patience()), ("store_timeout_ms", patience())]);
        to_listen.push(("queue_overflow", "block".into()));
        let stored = setup.store.is_some();
        let subscriber = |(number, topics): (usize, &Vec<String>)| {
            let options = [&to_listen[..], &[("topics", topics.join(","))]].concat();
            let arguments = SubscriberArgs::command_line(number, stored);
            Process::start(Who::Subscriber(number), &arguments, &options, sender.clone())
        };
        let writer = |number| {
            let options = [&to_send[..], &[("publisher_id", writer_id(number))]].concat();
            let arguments = WriterArgs::command_line(number, args, setup);
            Process::start(Who::Writer(number), &arguments, &options, sender.clone())
        };
        let cast = Cast {
            subscribers: topics.iter().enumerate().map(subscriber).collect::<Result<_>>()?,
            writers: (0..args.writers).map(writer).collect::<Result<_>>()?,
            servers,
            store,
            ears,
            _folder: folder,
        };
        for _ in topics {
            match cast.hear(deadline)? {
                Some((_, Report::Live)) => {}
                Some((who, report)) => return Err(unexpected(who, &report)),
                None => return Err(late("not every subscriber is live")),
            }
        }
        Ok(cast)
    }

    /// The next report of a child; `None` if there is none by `deadline`.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`] if a child ended, or the user wants to end.
    pub(super) fn hear(&self, deadline: Instant) -> Result<Option<(Who, Report)>> {
        let heard = self.ears.hear(deadline)?;
        heard.map(|(who, line)| Ok((who, protocol::read(&line)?))).transpose()
    }

    pub(super) fn order_writer(&mut self, number: usize, up_to: u64) -> Result<()> {
        self.writers[number].order(&Order::Send { up_to })
    }

    pub(super) fn order_subscriber(&mut self, number: usize, order: &Order) -> Result<()> {
        self.subscribers[number].order(order)
    }

    /// The store that the writers write to.
    pub(super) fn open_store(&self) -> Result<Arc<dyn tablecast::Store>> {
        Stores::new().open(&config_of(&self.store)?)
    }

    /// Does nothing for a while.
    pub(super) fn rest(&self, time: Duration) -> Result<()> {
        match self.ears.signals.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(interrupted()),
        }
    }

    /// Lets every process end by itself.
    ///
    /// # Errors
    /// What one of them failed with, or [`ErrorKind::Timeout`] if it had to be killed.
    pub(super) fn end(self) -> Result<()> {
        let Cast {
            writers,
            subscribers,
            servers,
            store: _,
            ears: _,
            _folder,
        } = self;
        for group in [writers, subscribers, servers] {
            let mut group = group;
            group.iter_mut().for_each(Process::dismiss);
            group.into_iter().try_for_each(|process| process.wait(END))?;
        }
        Ok(())
    }
}

impl Ears {
    fn hear(&self, deadline: Instant) -> Result<Option<(Who, String)>> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        select! {
            recv(self.heard) -> heard => match heard {
                Ok((who, Some(line))) => Ok(Some((who, line))),
                Ok((who, None)) => Err(Error::new(ErrorKind::Stopped, format!("{who} ended too early"))),
                Err(_) => Err(Error::new(ErrorKind::Stopped, "every child ended too early")),
            },
            recv(self.signals) -> _ => Err(interrupted()),
            default(timeout) => Ok(None),
        }
    }

    /// The address in `ready <address> ...`, which is the first that `who` says.
    fn ready(&self, who: Who, deadline: Instant) -> Result<String> {
        let Some((of, line)) = self.hear(deadline)? else {
            return Err(late(&format!("{who} is not ready")));
        };
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("ready"), Some(address)) if of == who => Ok(address.to_owned()),
            _ => Err(Error::new(ErrorKind::Malformed, format!("{of} said {line:?}"))),
        }
    }
}

/// The id of a writer's publisher.
pub(super) fn writer_id(number: usize) -> String {
    format!("writer-{}", number + 1)
}

pub(super) fn unexpected(who: Who, report: &Report) -> Error {
    Error::new(ErrorKind::Malformed, format!("{who} said {report:?} at the wrong time"))
}

pub(super) fn late(what: &str) -> Error {
    Error::new(ErrorKind::Timeout, what)
}

fn interrupted() -> Error {
    Error::new(ErrorKind::Stopped, "interrupted")
}

/// A folder of our own whose name leaves room for a socket's.
fn folder() -> Result<TempDir> {
    let usual = std::env::temp_dir();
    let short = usual.as_os_str().len() < 60;
    let place = if short { usual } else { "/tmp".into() };
    let made = tempfile::Builder::new().prefix("tablecast-demo-").tempdir_in(&place);
    made.map_err(|e| {
        let context = format!("cannot make a folder in {}", place.display());
        Error::new(ErrorKind::Io, context).with_source(e)
    })
}
