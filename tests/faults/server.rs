//! A server: its listener's handler logs what it is called with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};
use tablecast::{DbUpdate, Error, Listener, ListenerOptions, Store};

use super::actor;
use super::gate::{Gate, Gated};
use super::history::{Event, Log, Status};
use super::stage::pass;
use super::world::{Parts, World};

/// What the names of the servers' files begin with.
pub(crate) const SERVER: &str = "server-";

/// How long the handler takes.
const HANDLING: Duration = Duration::from_millis(1);

/// Longer than a stop waits for it.
const SLOW: Duration = Duration::from_millis(1500);

/// What a server is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerSpec {
    pub(crate) log: PathBuf,
    /// The id of its listener.
    pub(crate) id: String,
    pub(crate) world: World,
}

/// What a server can be told; it answers each. It ends, cleanly, when nothing more can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Cuts it off from its store, or no more.
    Cut(bool),
    /// The handler takes so long once, from now on.
    Slow(Duration),
    /// Stops the listener, while its handler takes longer than that waits for, and begins another one of its id.
    Replace,
}

struct Server {
    spec: ServerSpec,
    parts: Parts,
    gate: Arc<Gate>,
    store: Arc<dyn Store>,
    log: Arc<Log>,
    /// Taken by the handler that is to take so long.
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

    /// A listener that is registered.
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

    /// Returns when the handler has begun to take so long.
    fn delay(&self, time: Duration) {
        self.slow.0.send_timeout(time, actor::LIMIT).unwrap();
    }
}

/// What an update says.
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
