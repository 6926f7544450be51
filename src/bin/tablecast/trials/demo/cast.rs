//! The processes of the demo, which start together and end with their handle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use tablecast::{Result, Stores};

use super::args::Args;
use super::protocol::{Order, Report};
use super::subscriber::SubscriberArgs;
use super::writer::WriterArgs;
use crate::trials::stage::{self, Choice, Driver, Process, Setup, Stage, Who, config_of, wire};

/// The writers, the subscribers, and the servers between them.
#[derive(Debug)]
pub(super) struct Cast {
    // Fields drop in order: the folder goes last.
    writers: Vec<Process>,
    subscribers: Vec<Process>,
    /// The publisher service, or a Redis server, or both.
    servers: Vec<Process>,
    /// The options of the store.
    store: Vec<Choice>,
    stage: Stage,
}

impl Cast {
    /// Starts the processes, with subscribers of these topics, which hold these tables if there is a store; returns
    /// when all subscribers are live.
    pub(super) fn start(
        setup: &Setup,
        args: &Args,
        topics: &[Vec<String>],
        tables: &[String],
        signals: &Receiver<()>,
    ) -> Result<Cast> {
        let stage = Stage::new(signals)?;
        let deadline = Instant::now() + stage::START;
        let (redis, to_redis) = stage.start_redis(setup, deadline)?;
        let mut servers = Vec::from_iter(redis);
        let common = [&setup.common[..], &to_redis].concat();
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
                to_send.push(("publisher_multiproc_socket", stage.path("publisher.sock")));
                let options = [&to_send[..], &[("publisher_port", "0".into())]].concat();
                servers.push(stage.start(Who::Service, &["demo-service".into()], &options)?);
                to_listen.push(("publishers", stage.ready(Who::Service, deadline)?));
            }
        }
        let store = [common, stage.store(setup)].concat();
        to_send.extend_from_slice(&store);
        to_listen.extend_from_slice(&store);
        let patience = || "10000".to_owned();
        to_send.extend([("send_timeout_ms", patience()), ("store_timeout_ms", patience())]);
        to_listen.push(("queue_overflow", "block".into()));
        let held = if setup.store.is_some() { tables } else { &[] };
        let subscriber = |(number, topics): (usize, &Vec<String>)| {
            let options = [&to_listen[..], &[("topics", topics.join(","))]].concat();
            let arguments = SubscriberArgs::command_line(number, held);
            stage.start(Who::Subscriber(number), &arguments, &options)
        };
        let writer = |number| {
            let options = [&to_send[..], &[("publisher_id", writer_id(number))]].concat();
            let arguments = WriterArgs::command_line(number, args, setup);
            stage.start(Who::Writer(number), &arguments, &options)
        };
        let cast = Cast {
            subscribers: topics.iter().enumerate().map(subscriber).collect::<Result<_>>()?,
            writers: (0..args.writers).map(writer).collect::<Result<_>>()?,
            servers,
            store,
            stage,
        };
        for _ in topics {
            match cast.hear(deadline)? {
                Some((_, Report::Live)) => {}
                Some((who, report)) => return Err(stage::unexpected(who, &report)),
                None => return Err(stage::late("not every subscriber is live")),
            }
        }
        Ok(cast)
    }

    /// The next report of a child; `None` if there is none by `deadline`.
    ///
    /// # Errors
    /// As [`Stage::hear`].
    pub(super) fn hear(&self, deadline: Instant) -> Result<Option<(Who, Report)>> {
        let heard = self.stage.hear(deadline)?;
        heard.map(|(who, line)| Ok((who, wire::read(&line)?))).transpose()
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

    /// Pauses, unless a signal comes.
    pub(super) fn rest(&self, time: Duration) -> Result<()> {
        self.stage.rest(time)
    }

    /// Lets every process end by itself.
    ///
    /// # Errors
    /// As [`stage::end`].
    pub(super) fn end(self) -> Result<()> {
        // The stage goes last.
        let Cast {
            writers,
            subscribers,
            servers,
            store: _,
            stage: _stage,
        } = self;
        [writers, subscribers, servers].into_iter().try_for_each(stage::end)
    }
}

/// The id of a writer's publisher.
pub(super) fn writer_id(number: usize) -> String {
    format!("writer-{}", number + 1)
}
