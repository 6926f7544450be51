//! A process that starts and ends everything repeatedly, at random moments.

use std::fmt;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use serde::{Deserialize, Serialize};
use tablecast::drivers::zmq::{ZmqDriver, ZmqMultiproc, ZmqOptions};
use tablecast::queue::{Overflow, QueueOptions};
use tablecast::transport::Driver;
use tablecast::{DbUpdate, Publisher, PublisherOptions, Service, ServiceOptions, SubscriberOptions};

use super::actor;
use super::common::{Stopwatch, pass};
use super::history::Held;
use super::holdings;
use super::random::Random;
use super::rig::{Rig, topic, update};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StopsSpec {
    pub(crate) rounds: usize,
    pub(crate) seed: u64,
    pub(crate) hello_interval: Duration,
}

/// The counts of its rounds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Stops {
    pub(crate) longest: Duration,
    pub(crate) before: Held,
    pub(crate) after: Held,
    /// Ends from inside a callback.
    pub(crate) inside: u64,
    /// Ends while the queue was full, and while the peer was dead.
    pub(crate) full: u64,
    pub(crate) dead: u64,
}

impl fmt::Display for Stops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the longest stop or drop took {:.1?} (bound 1 s); {} from a callback, {} with a full queue, {} with a dead peer",
            self.longest, self.inside, self.full, self.dead
        )
    }
}

/// Number of rounds between two answers.
const STEP: usize = 10;

/// The body of the process.
pub(crate) fn run(spec: &StopsSpec) {
    let mut random = Random::from_seed(spec.seed);
    let mut stops = Stops::default();
    // The resources of the first round are never released.
    for _ in 0..5 {
        round(&mut random, spec.hello_interval, &mut Stops::default());
    }
    let nothing = Held {
        threads: 1,
        ..Held::default()
    };
    stops.before = holdings::come_back(nothing);
    for number in (0..spec.rounds).rev() {
        round(&mut random, spec.hello_interval, &mut stops);
        if number == 0 {
            stops.after = holdings::come_back(stops.before);
        }
        if number % STEP == 0 {
            actor::answer(&(number, stops));
        }
    }
}

/// The bound of each stop and drop.
const BOUND: Duration = Duration::from_secs(1);

fn quickest<T>(longest: &mut Duration, end: impl FnOnce() -> T) -> T {
    let (start, watch) = (Instant::now(), Stopwatch::start());
    let result = end();
    watch.assert_within(BOUND, "a stop or drop");
    *longest = start.elapsed().max(*longest);
    result
}

/// A publisher behind a service, a subscriber, load, and the end of each of them in random order.
fn round(random: &mut Random, hello_interval: Duration, stops: &mut Stops) {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("ipc://{}/publisher.sock", folder.path().display());
    let driver: Arc<dyn Driver> = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap());
    let multiproc = ZmqMultiproc::new(&socket, ZmqOptions::default()).unwrap();
    let options = ServiceOptions {
        hello_interval,
        ..ServiceOptions::default()
    };
    let service = Service::start(&multiproc, &socket, &*driver, options).unwrap();
    let options = PublisherOptions {
        hello_interval,
        send_timeout: Duration::from_millis(200),
        ..PublisherOptions::default()
    };
    let publisher = Arc::new(Publisher::new(&multiproc, options).unwrap());
    let is_full = random.below(3) == 0;
    let queue = QueueOptions {
        capacity: if is_full { 10 } else { 65_536 },
        overflow: [Overflow::Block, Overflow::Coalesce, Overflow::DropAndSync][random.below(3)],
        ..QueueOptions::default()
    };
    let rig = Rig::with(&driver, SubscriberOptions::default(), queue);
    let (release, released) = bounded::<()>(0);
    if is_full {
        stops.full += 1;
        rig.dispatcher
            .on_update(move |_: &DbUpdate| {
                let _ = released.recv();
            })
            .detach();
    }
    rig.subscriber.register_topic(&topic("D")).unwrap();
    // In some rounds a peer that never answers, beside the service.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    if random.below(3) == 0 {
        stops.dead += 1;
        let address = format!("tcp://{}", silent.local_addr().unwrap());
        rig.subscriber.register_listen_address(&address).unwrap();
    }
    rig.subscriber
        .register_listen_address(&service.address().unwrap())
        .unwrap();
    rig.subscriber.daemonize().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (sending, stopped) = (Arc::clone(&publisher), Arc::clone(&stop));
    let load = move || {
        while !stopped.load(Ordering::Relaxed) {
            // Refused once the service is gone.
            let _ = sending.send_event(&update("k"));
        }
    };
    let load = std::thread::Builder::new().name("load".into()).spawn(load).unwrap();
    pass(Duration::from_micros(random.below(30_000) as u64));
    let longest = &mut stops.longest;
    if !is_full && random.below(3) == 0 {
        stops.inside += 1;
        end_inside(&rig, longest);
    }
    if random.below(2) == 0 {
        quickest(longest, || drop(service));
    } else {
        quickest(longest, || service.stop());
    }
    if random.below(2) == 0 {
        quickest(longest, || rig.subscriber.stop());
        rig.subscriber.daemonize().unwrap();
    }
    let Rig {
        subscriber, dispatcher, ..
    } = rig;
    if random.below(2) == 0 {
        quickest(longest, || drop(subscriber));
        quickest(longest, || drop(dispatcher));
    } else {
        quickest(longest, || drop(dispatcher));
        quickest(longest, || drop(subscriber));
    }
    drop(release);
    stop.store(true, Ordering::Relaxed);
    load.join().unwrap();
    quickest(longest, || drop(publisher));
}

/// Stops the subscriber and the dispatcher from inside a callback, on the next event.
fn end_inside(rig: &Rig, longest: &mut Duration) {
    let (subscriber, dispatcher) = (Arc::downgrade(&rig.subscriber), rig.dispatcher.handle());
    let (done, took) = bounded(1);
    let end = move |_: &DbUpdate| {
        let (start, watch) = (Instant::now(), Stopwatch::start());
        if let Some(subscriber) = subscriber.upgrade() {
            subscriber.stop();
        }
        dispatcher.stop();
        let _ = done.try_send(watch.check(BOUND, "a stop in a callback").map(|()| start.elapsed()));
    };
    rig.dispatcher.on_update(end).detach();
    let took = took.recv_timeout(actor::LIMIT).unwrap().unwrap();
    *longest = took.max(*longest);
}
