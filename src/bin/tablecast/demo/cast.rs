//! The processes of the demo: they are started together, and none is left when their handle is gone.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, select};
use tablecast::{Config, Error, ErrorKind, Result};
use tempfile::TempDir;

use super::Args;
use super::process::{Heard, Process, Who};
use super::protocol::{self, Order, Report};
use super::subscriber::SubscriberArgs;
use super::writer::WriterArgs;

/// The publisher service, the writers and the subscribers.
#[derive(Debug)]
pub(super) struct Cast {
    // Fields drop in order: the folder goes last.
    writers: Vec<Process>,
    subscribers: Vec<Process>,
    service: Process,
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
    pub(super) fn start(config: &Config, args: &Args, topics: &[Vec<String>], signals: &Receiver<()>) -> Result<Cast> {
        let (sender, heard) = crossbeam_channel::unbounded();
        let ears = Ears {
            heard,
            signals: signals.clone(),
        };
        let folder = folder()?;
        let codec = ("CODEC", config.codec.to_string());
        let socket = folder.path().join("publisher.sock").display().to_string();
        let socket = ("PUBLISHER_MULTIPROC_SOCKET", socket);

        let options = [codec.clone(), socket.clone(), ("PUBLISHER_PORT", "0".into())];
        let service = Process::start(Who::Service, &["service".into()], &options, sender.clone())?;
        let deadline = Instant::now() + START;
        let address = match ears.hear(deadline)? {
            Some((_, line)) => ready_address(&line)?,
            None => return Err(late("the publisher service is not ready")),
        };
        let subscriber = |(number, topics): (usize, &Vec<String>)| {
            let options = [
                ("PUBLISHERS", address.clone()),
                ("TOPICS", topics.join(",")),
                ("QUEUE_OVERFLOW", "block".into()),
            ];
            let arguments = SubscriberArgs::command_line(number);
            Process::start(Who::Subscriber(number), &arguments, &options, sender.clone())
        };
        let writer = |number| {
            let options = [
                codec.clone(),
                socket.clone(),
                ("PUBLISHER_ID", writer_id(number)),
                ("SEND_TIMEOUT_MS", "10000".into()),
            ];
            let arguments = WriterArgs::command_line(number, args.writers, args.updates);
            Process::start(Who::Writer(number), &arguments, &options, sender.clone())
        };
        let cast = Cast {
            subscribers: topics.iter().enumerate().map(subscriber).collect::<Result<_>>()?,
            writers: (0..args.writers).map(writer).collect::<Result<_>>()?,
            service,
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
            service,
            ears: _,
            _folder,
        } = self;
        for group in [writers, subscribers, vec![service]] {
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

/// The address in `ready <tcp address> <ipc address>`.
fn ready_address(line: &str) -> Result<String> {
    let mut words = line.split(' ');
    match (words.next(), words.next()) {
        (Some("ready"), Some(address)) => Ok(address.to_owned()),
        _ => Err(Error::new(
            ErrorKind::Malformed,
            format!("the publisher service said {line:?}"),
        )),
    }
}
