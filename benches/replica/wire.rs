//! From a publisher over tcp to a replica, next to a bare callback over the same connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::{DbUpdate, Dispatcher, Publisher, PublisherOptions, Subscriber, SubscriberOptions, Topic};

use super::{Bed, LONG, counted, dispatcher, has, line, time, wait_until};

const UPDATES: usize = 300_000;
const ROUNDS: usize = 5;

/// A publisher, and a subscriber connected to it.
struct Way {
    publisher: Publisher,
    subscriber: Arc<Subscriber>,
}

impl Way {
    fn new(dispatcher: &Dispatcher) -> Way {
        // Nothing is dropped: the work of the receiver is compared.
        let options = || ZmqOptions {
            send_hwm: 0,
            receive_hwm: 0,
            ..ZmqOptions::default()
        };
        let driver = || ZmqDriver::new("tcp://127.0.0.1:0", options()).expect("a driver");
        let publisher = Publisher::new(&driver(), PublisherOptions::default()).expect("a publisher");
        let subscriber = Subscriber::new(Arc::new(driver()), dispatcher.queue(), SubscriberOptions::default());
        let address = publisher.address().expect("an address");
        subscriber.register_topic(&Topic::ALL).expect("a topic");
        subscriber.register_listen_address(&address).expect("an address");
        subscriber.daemonize().expect("a thread");
        subscriber.wait_live(LONG).expect("in time");
        Way {
            publisher,
            subscriber: Arc::new(subscriber),
        }
    }

    /// Sends updates. Returns the time from the first send until `is_done`.
    fn send(&self, updates: &[DbUpdate], is_done: impl Fn() -> bool) -> Duration {
        time(|| {
            for update in updates {
                self.publisher.send_event(update).expect("it is sent");
            }
            wait_until(is_done);
        })
    }
}

pub(super) fn updates(rows: usize) {
    let mut bed = Bed::local(rows);
    let way = Way::new(&bed.dispatcher);
    bed.subscriber = Arc::clone(&way.subscriber);
    let (_, _replica, table) = bed.synced();

    let other = dispatcher();
    let bare = Way::new(&other);
    let count = counted(&other);

    let mut chance = fastrand::Rng::with_seed(5);
    let round = |number: usize| {
        let updates = bed.written(&mut chance, rows, UPDATES);
        let last = updates.last().expect("updates");
        let ours = way.send(&updates, || has(&table, last));
        let all = (number + 1) * UPDATES;
        (ours, bare.send(&updates, || count.load(Ordering::Relaxed) == all))
    };
    let mut rounds: Vec<(Duration, Duration)> = (0..ROUNDS).map(round).collect();
    rounds.sort_by(|a, b| (a.0.as_secs_f64() / a.1.as_secs_f64()).total_cmp(&(b.0.as_secs_f64() / b.1.as_secs_f64())));
    let (ours, bare) = rounds[ROUNDS / 2];
    line("updates over tcp (median round)", ours, "a bare callback", bare);
}
