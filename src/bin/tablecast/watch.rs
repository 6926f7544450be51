//! `tablecast watch`: prints the updates and sync events of a subscriber.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::iter;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, bounded, select};
use tablecast::{
    AddressState, Config, DispatcherHandle, Error, ErrorKind, Event, Node, Result, Subscriber, SyncReason, Topic,
};

use crate::args::Until;
use crate::line::{Line, update_text};
use crate::metrics::MetricsArgs;
use crate::supervisor::Supervisor;
use crate::terminal::{Columns, FormatArgs, Kind};
use crate::{args, output, shared, signal};

/// Print updates as they arrive; prints `ready` on stderr once it is live.
///
/// On a terminal the output is columns: action, table, key, version, topic, value. Elsewhere it is one JSON object per
/// line: {"event":"update","table":..,"key":..,"action":..,"value":..,"topic":..,"priority":..}, with "version":.. if
/// the row has one, and {"event":"sync","reason":..} where updates may have been missed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    listen: args::Listen,
    /// Print only updates of this table; may be repeated.
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    #[command(flatten)]
    until: Until,
    #[command(flatten)]
    metrics: MetricsArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// A watcher wants to see every update.
pub(crate) const DEFAULTS: &[(&str, &str)] = &[("queue_overflow", "block")];

/// Maximum of events that wait to be printed, and that are printed before stdout is flushed.
const CAPACITY: usize = 1024;

/// Time to wait in silence for a connection.
const SILENCE: Duration = Duration::from_secs(2);

/// Prints until the count, the timeout or a signal.
pub(crate) fn run(mut config: Config, args: &Args) -> Result<()> {
    let signal = signal::channel(signal::GRACE)?;
    // Workers would only change the order.
    config.dispatcher_workers = 0;
    args.listen.apply(&mut config)?;
    if config.topics.is_empty() {
        let context = "there is no topic to watch: name one with --topic, or in the option topics";
        return Err(Error::new(ErrorKind::InvalidInput, context));
    }
    shared::network(&config)?;
    let node = Node::open(&config)?;
    let _metrics = args.metrics.serve(&node)?;
    let events = register(&node.dispatcher()?, &args.table);
    let subscriber = node.subscriber()?;
    let watch = Watch {
        events,
        subscriber: &subscriber,
        until: args.until,
        printed: 0,
        ready: false,
        supervisor: Supervisor::find(),
        place: config.discover.then(|| output::place(&config)),
        columns: args.format.columns(),
    };
    let watched = watch.run(&signal);
    log::info!("{:?}", subscriber.stats());
    watched
}

/// The events of these tables, or of all if there are none.
fn register(dispatcher: &DispatcherHandle, tables: &[String]) -> Receiver<Event> {
    let (sender, events) = bounded(CAPACITY);
    // Waits for the printing: nothing may be lost. It is refused only at the end.
    let tables: BTreeSet<String> = tables.iter().cloned().collect();
    let handler = move |event: &Event| {
        let is_wanted = match event {
            Event::Update(update) => tables.is_empty() || tables.contains(&*update.table),
            _ => true,
        };
        if is_wanted {
            drop(sender.send(event.clone()));
        }
    };
    dispatcher.on_event(handler).detach();
    events
}

struct Watch<'a> {
    events: Receiver<Event>,
    subscriber: &'a Subscriber,
    until: Until,
    printed: u64,
    ready: bool,
    supervisor: Supervisor,
    /// The store in which publishers are looked for, as people look for it.
    place: Option<String>,
    /// Where lines are for people.
    columns: Option<Columns>,
}

impl Watch<'_> {
    fn run(mut self, signal: &Receiver<()>) -> Result<()> {
        let mut out = BufWriter::with_capacity(1 << 16, output::stdout());
        let deadline = self.until.deadline();
        let silence = after(SILENCE);
        let signs = self.supervisor.ticks();
        loop {
            select! {
                recv(self.events) -> event => {
                    let event = event.map_err(|_| Error::new(ErrorKind::Stopped, "the dispatcher ended"))?;
                    if self.print(event, &mut out).map_err(output::failed)? {
                        return Ok(());
                    }
                }
                recv(signal) -> _ => return self.end(Until::interrupted, &mut out),
                recv(deadline) -> _ => return self.end(Until::timed_out, &mut out),
                recv(silence) -> _ => self.complain(),
                recv(signs) -> _ => {
                    if self.subscriber.is_running() {
                        self.supervisor.alive();
                    }
                }
            }
        }
    }

    /// Prints what was received before the end.
    fn end(&mut self, end: impl FnOnce(Until, u64) -> Result<()>, out: &mut impl Write) -> Result<()> {
        let is_enough = match self.events.try_recv() {
            Ok(event) => self.print(event, out).map_err(output::failed)?,
            Err(_) => false,
        };
        if is_enough {
            Ok(())
        } else {
            end(self.until, self.printed)
        }
    }

    /// Prints this event and those that wait; true if that was enough.
    fn print(&mut self, first: Event, out: &mut impl Write) -> io::Result<bool> {
        let mut enough = false;
        let mut synced = false;
        for event in iter::once(first).chain(self.events.try_iter()).take(CAPACITY) {
            write(&mut self.columns, &event, out)?;
            match &event {
                Event::Update(_) => self.printed += 1,
                Event::Sync(reason) => {
                    synced = true;
                    if let SyncReason::Cleared { topics, .. } = reason {
                        self.listen_again(topics);
                    }
                }
                _ => continue,
            }
            enough = self.until.is_enough(self.printed);
            if enough {
                break;
            }
        }
        out.flush()?;
        // Whenever a publisher becomes live, or proves to be one without hellos, a sync event comes.
        if synced && !self.ready && self.is_settled() {
            self.ready = true;
            output::say("ready");
            self.supervisor.ready();
        }
        Ok(enough)
    }

    /// The topics were cleared, as the option `resubscribe` says.
    fn listen_again(&self, topics: &[Topic]) {
        for topic in topics {
            if let Err(e) = self.subscriber.register_topic(topic) {
                log::warn!("cannot listen to {topic} again: {e}");
            }
        }
    }

    /// True once all is live; the subscriber itself has warned of publishers that send no hellos.
    fn is_settled(&self) -> bool {
        let mut peers = self.subscriber.status().addresses.into_iter();
        peers.all(|peer| matches!(peer.state, AddressState::Live | AddressState::NoHello))
    }

    fn complain(&self) {
        let status = self.subscriber.status();
        if let Some(place) = self.place.as_ref().filter(|_| status.addresses.is_empty()) {
            log::warn!("no publisher is registered in {place}; still looking");
        }
        let missing = status
            .addresses
            .iter()
            .filter(|peer| peer.state == AddressState::Connecting);
        let missing: Vec<_> = missing.map(|peer| peer.address.as_str()).collect();
        if !missing.is_empty() {
            log::warn!("no connection yet to {}; still trying", missing.join(", "));
        }
    }
}

fn write(columns: &mut Option<Columns>, event: &Event, out: &mut impl Write) -> io::Result<()> {
    match (event, columns) {
        (Event::Update(update), Some(columns)) => writeln!(out, "{}", update_text(columns, update)),
        (Event::Sync(reason), Some(columns)) => {
            writeln!(out, "{}", columns.line(Kind::Event, &["sync", &reason.to_string()]))
        }
        (Event::Update(update), None) => json(out, &Line::from(update)),
        (Event::Sync(reason), None) => json(out, &Line::from(reason)),
        _ => Ok(()),
    }
}

fn json(out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
