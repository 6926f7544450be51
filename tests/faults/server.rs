//! A server: its listener's handler logs its calls.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};
use tablecast::{DbUpdate, Error, Listener, ListenerOptions, Store};

use super::actor;
use super::common::pass;
use super::gate::{Gate, Gated};
use super::history::{Event, Log, Status};
use super::world::{Parts, World};

/// Beginning of the names of the servers' files.
pub(crate) const SERVER: &str = "server-";

/// How long the handler takes.
const HANDLING: Duration = Duration::from_millis(1);

/// Longer than a stop waits for it.
const SLOW: Duration = Duration::from_millis(1500);

/// Options of a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerSpec {
    pub(crate) log: PathBuf,
    /// The id of its listener.
    pub(crate) id: String,
    pub(crate) world: World,
}

/// Orders for a server, which answers each. It ends cleanly when its input is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Cuts it off from its store, or ends that.
    Cut(bool),
    /// Makes the next call of the handler take this long.
    Slow(Duration),
    /// Stops the listener, whose handler takes longer than the stop waits for, and begins another one with its id.
    Replace,
}

struct Server {
    spec: ServerSpec,
    parts: Parts,
    gate: Arc<Gate>,
    store: Arc<dyn Store>,
    log: Arc<Log>,
    /// The time is taken by the handler's next call.
    slow: (Sender<Duration>, Receiver<Duration>),
}

impl Server {
    fn open(spec: &ServerSpec) -> Server {
        let gate = Arc::new(Gate::new(spec.world.patience()));
        let gated = Gated {
            store: spec.world.open_store(),
            gate: Arc::clone(&gate),
        };
        Server {
            spec: spec.clone(),
            parts: Parts::open(&spec.world),
            gate,
            store: Arc::new(gated),
            log: Arc::new(Log::append_to(&spec.log)),
            slow: bounded(0),
        }
    }

    /// A registered listener.
    fn listen(&self) -> Listener {
        let id = self.spec.id.clone();
        let options = ListenerOptions {
            id: Some(id.as_str().into()),
            hook: Some(Arc::new(move |e: &Error| eprintln!("listener {id}: {e}"))),
            ..self.spec.world.listener()
        };
        let (log, slow) = (Arc::clone(&self.log), self.slow.1.clone());
        let handle = move |update: &DbUpdate| {
            let status = status(update);
            log.write(Event::Begun(status.clone()));
            pass(slow.try_recv().unwrap_or(HANDLING));
            log.write(Event::Handled(status));
        };
        let Parts {
            dispatcher,
            subscriber,
            publisher,
            ..
        } = &self.parts;
        let store = Arc::clone(&self.store);
        let listener = Listener::new(store, subscriber, dispatcher, publisher, options, handle).unwrap();
        listener.wait_registered(actor::LIMIT).unwrap();
        listener
    }

    /// Makes the next call of the handler take this long. Returns when it has begun.
    fn delay(&self, time: Duration) {
        self.slow.0.send_timeout(time, actor::LIMIT).unwrap();
    }
}

/// The state in an update.
fn status(update: &DbUpdate) -> Status {
    Status {
        row: update.key.to_string(),
        state: update.value.as_deref().unwrap().parse().unwrap(),
    }
}

/// The body of a server's process.
pub(crate) fn run(spec: &ServerSpec) {
    let orders = actor::orders::<Order>();
    let server = Server::open(spec);
    let mut listener = server.listen();
    actor::answer(&());
    for order in orders {
        match order {
            Order::Cut(cut) => server.gate.shut(cut),
            Order::Slow(time) => server.delay(time),
            Order::Replace => {
                server.delay(SLOW);
                listener.stop();
                listener = server.listen();
            }
        }
        actor::answer(&());
    }
    listener.stop_within(actor::LIMIT).unwrap();
}
