//! A node: its notifiers send the states of its rows, and it logs the acknowledgements.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use serde::{Deserialize, Serialize};
use tablecast::{Action, DbUpdate, Error, Notifier, NotifierOptions};

use super::actor;
use super::history::{Event, Log, Status};
use super::world::{Parts, World};

/// Beginning of the names of the nodes' files.
pub(crate) const NODE: &str = "node-";

/// How often it checks for acknowledgements.
const LOOK: Duration = Duration::from_millis(1);

/// Options of a node. A notifier counts acknowledgements but does not name them. So a notifier has a single row, whose
/// states it sends one after the other, or it sends the next states of all its rows once all earlier ones are
/// acknowledged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeSpec {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) world: World,
    /// For each notifier, how many rows it has.
    pub(crate) notifiers: Vec<u64>,
    /// Minimum number of updates of each notifier; it goes on until it is told to finish.
    pub(crate) updates: u64,
}

/// How many states of a single row a notifier may have unacknowledged.
const AHEAD: u64 = 40;

/// Orders for a node, which answers each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Waits for this many listeners, and begins.
    Begin(usize),
    /// Sends no more than it has to.
    Finish,
    /// Answers with its state.
    Report,
    /// Answers with the ids of the living listeners.
    Listeners,
}

/// State of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) acknowledged: u64,
    /// Number of updates given or still to be given that are not acknowledged.
    pub(crate) pending: u64,
    /// Messages with updates, and those among them that repeated an update.
    pub(crate) sent: u64,
    pub(crate) retried: u64,
}

struct Rows {
    notifier: Notifier,
    names: Vec<String>,
    /// The state at which each row may end.
    least: u64,
    /// The last state given, and the last one acknowledged for all rows.
    given: u64,
    acknowledged: u64,
}

impl Rows {
    /// Logs acknowledgements, and gives the next states.
    fn turn(&mut self, log: &Log, is_over: bool) {
        let acknowledged = self.notifier.stats().acknowledged / self.names.len() as u64;
        while self.acknowledged < acknowledged {
            self.acknowledged += 1;
            for row in &self.names {
                log.note(Event::Acknowledged(status(row, self.acknowledged)));
            }
        }
        let ahead = if self.names.len() == 1 { AHEAD } else { 1 };
        let may = |given| given < self.acknowledged + ahead && !(is_over && given >= self.least);
        while may(self.given) {
            self.given += 1;
            for row in &self.names {
                log.note(Event::Notified(status(row, self.given)));
                let update = DbUpdate::new("lport", row.as_str(), Action::Set).value(self.given.to_string());
                self.notifier.notify(update).unwrap();
            }
        }
    }
}

fn status(row: &str, state: u64) -> Status {
    Status { row: row.into(), state }
}

struct Node {
    log: Log,
    rows: Vec<Rows>,
    begun: bool,
    is_over: bool,
    _parts: Parts,
}

impl Node {
    fn open(spec: &NodeSpec) -> Node {
        let parts = Parts::open(&spec.world);
        let store = spec.world.open_store();
        let notifiers = spec.notifiers.iter().enumerate().map(|(number, rows)| {
            let name = spec.name.clone();
            let options = NotifierOptions {
                hook: Some(Arc::new(move |e: &Error| eprintln!("node {name}: {e}"))),
                ..spec.world.notifier()
            };
            let Parts {
                dispatcher,
                subscriber,
                publisher,
                ..
            } = &parts;
            Rows {
                notifier: Notifier::new(Arc::clone(&store), subscriber, dispatcher, publisher, options).unwrap(),
                names: (0..*rows).map(|row| format!("{}/{number}/{row}", spec.name)).collect(),
                least: spec.updates / rows,
                given: 0,
                acknowledged: 0,
            }
        });
        Node {
            log: Log::append_to(&spec.folder.join(format!("{NODE}{}", spec.name))),
            rows: notifiers.collect(),
            begun: false,
            is_over: false,
            _parts: parts,
        }
    }

    fn begin(&mut self, listeners: usize) {
        for rows in &self.rows {
            rows.notifier.wait_listeners(listeners, actor::LIMIT).unwrap();
        }
        self.begun = true;
    }

    fn turn(&mut self) {
        if self.begun {
            self.rows.iter_mut().for_each(|rows| rows.turn(&self.log, self.is_over));
            self.log.flush();
        }
    }

    fn report(&self) -> Report {
        let mut report = Report::default();
        for rows in &self.rows {
            let stats = rows.notifier.stats();
            let count = rows.names.len() as u64;
            report.acknowledged += rows.acknowledged * count;
            report.pending += (rows.given.max(rows.least) - rows.acknowledged) * count;
            report.sent += stats.sent;
            report.retried += stats.retried;
        }
        report
    }

    fn listeners(&self) -> Vec<String> {
        let listeners = self.rows[0].notifier.listeners().into_iter();
        listeners.map(|member| member.id).collect()
    }
}

/// The body of a node's process.
pub(crate) fn run(spec: &NodeSpec) {
    let orders = actor::orders::<Order>();
    let mut node = Node::open(spec);
    actor::answer(&());
    loop {
        match orders.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(Order::Begin(listeners)) => actor::answer(&node.begin(listeners)),
            Ok(Order::Finish) => {
                node.is_over = true;
                actor::answer(&());
            }
            Ok(Order::Report) => actor::answer(&node.report()),
            Ok(Order::Listeners) => actor::answer(&node.listeners()),
        }
        node.turn();
    }
}
