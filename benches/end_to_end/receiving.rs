//! The receiving process.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tablecast::drivers::zmq::{ZmqDriver, ZmqMultiproc};
use tablecast::queue::{Overflow, QueueOptions};
use tablecast::{DbUpdate, Dispatcher, DispatcherOptions, Service, ServiceOptions, Subscriber, SubscriberOptions};

use crate::PATIENCE;
use crate::sending::Other;
use crate::way::{Way, key, micros};

pub struct Measured {
    received: usize,
    took: Duration,
    pub latencies: Vec<i64>,
    /// What a sender alone has reached.
    pub sent_per_second: f64,
}

impl Measured {
    pub fn rate(&self) -> f64 {
        self.received as f64 / self.took.as_secs_f64()
    }
}

/// `count` updates of so many writers.
pub fn receive(way: Way<'_>, writers: usize, count: usize, rate: usize) -> Measured {
    match way.is_raw() {
        true => receive_raw(way, count, rate),
        false => receive_ours(way, writers, count, rate),
    }
}

fn receive_raw(way: Way<'_>, count: usize, rate: usize) -> Measured {
    let (mut sender, address) = Other::sender(way, "writer-1", "tcp://127.0.0.1:*", count, rate);
    let socket = raw_subscriber(&zmq::Context::new(), way, &address);
    assert_eq!(sender.line(), "subscribed");
    sender.go();
    let (mut start, mut latencies) = (None, Vec::with_capacity(count));
    let mut take = |stamp: i64| {
        start.get_or_insert_with(Instant::now);
        if rate != 0 {
            latencies.push(micros() - stamp);
        }
    };
    if way.hops() {
        let (to, from) = crossbeam_channel::unbounded();
        let read = move || receive_each(&socket, count, |stamp| to.send(stamp).unwrap());
        let reader = thread::Builder::new().spawn(read).unwrap();
        from.iter().for_each(&mut take);
        reader.join().unwrap();
    } else {
        receive_each(&socket, count, &mut take);
    }
    let took = start.unwrap().elapsed();
    Measured {
        received: count,
        took,
        latencies,
        sent_per_second: sender.finish(),
    }
}

pub fn raw_subscriber(context: &zmq::Context, way: Way<'_>, address: &str) -> zmq::Socket {
    let socket = context.socket(zmq::SUB).unwrap();
    socket.set_rcvhwm(0).unwrap();
    // Subscriptions are messages too, and dropped above the limit.
    socket.set_sndhwm(0).unwrap();
    socket.set_rcvtimeo(60_000).unwrap();
    if way.is_secured() {
        let (public, secret) = (key("public-key"), key("secret-key"));
        socket.set_curve_serverkey(&public).unwrap();
        socket.set_curve_publickey(&public).unwrap();
        socket.set_curve_secretkey(&secret).unwrap();
    }
    for topic in way.topics() {
        socket.set_subscribe(topic.as_str().as_bytes()).unwrap();
    }
    socket.connect(address).unwrap();
    socket
}

/// Calls `take` with the end of each message, which may be its time.
pub fn receive_each(socket: &zmq::Socket, count: usize, mut take: impl FnMut(i64)) {
    let (mut topic, mut payload) = (zmq::Message::new(), zmq::Message::new());
    for _ in 0..count {
        socket.recv(&mut topic, 0).unwrap();
        socket.recv(&mut payload, 0).unwrap();
        take(i64::from_ne_bytes(*payload.last_chunk().unwrap()));
    }
}

fn receive_ours(way: Way<'_>, writers: usize, count: usize, rate: usize) -> Measured {
    let (done, finished) = crossbeam_channel::bounded(1);
    let state = Mutex::new((None, 0, Vec::with_capacity(count)));
    let dispatcher = dispatcher();
    let guard = dispatcher.on_update(move |update: &DbUpdate| {
        let (start, received, latencies) = &mut *state.lock().unwrap();
        let start: &mut Instant = start.get_or_insert_with(Instant::now);
        if rate != 0 {
            latencies.push(micros() - update.timestamp);
        }
        *received += 1;
        if *received == count {
            done.send((start.elapsed(), std::mem::take(latencies))).unwrap();
        }
    });
    let network = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", way.options()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("ipc://{}/socket", folder.path().display());
    let multiproc = ZmqMultiproc::new(&socket, way.options()).unwrap();
    let service = way
        .through_service()
        .then(|| Service::start(&multiproc, &socket, &*network, ServiceOptions::default()).unwrap());
    let to = if service.is_some() {
        &*socket
    } else {
        "tcp://127.0.0.1:0"
    };
    let senders =
        (1..=writers).map(|number| Other::sender(way, &format!("writer-{number}"), to, count / writers, rate));
    let (mut senders, addresses): (Vec<_>, Vec<_>) = senders.unzip();
    let addresses = match &service {
        Some(service) => vec![service.address().unwrap()],
        None => addresses,
    };
    let subscriber = subscriber(way, network, &dispatcher, &addresses);
    for sender in &mut senders {
        assert_eq!(sender.line(), "subscribed");
    }
    senders.iter_mut().for_each(Other::go);
    let (took, latencies) = finished.recv_timeout(PATIENCE).expect("all updates");
    let sent_per_second = senders.into_iter().map(Other::finish).sum();
    drop((guard, subscriber));
    Measured {
        received: count,
        took,
        latencies,
        sent_per_second,
    }
}

/// A dispatcher whose senders wait: nothing is dropped or joined.
pub fn dispatcher() -> Dispatcher {
    let queue = QueueOptions {
        overflow: Overflow::Block,
        ..QueueOptions::default()
    };
    Dispatcher::new(DispatcherOptions {
        queue,
        ..DispatcherOptions::default()
    })
    .unwrap()
}

/// A subscriber that is live.
pub fn subscriber(way: Way<'_>, network: Arc<ZmqDriver>, dispatcher: &Dispatcher, addresses: &[String]) -> Subscriber {
    let options = SubscriberOptions {
        continuity: way.checks(),
        ..SubscriberOptions::default()
    };
    let subscriber = Subscriber::new(network, dispatcher.queue(), options);
    for topic in way.topics() {
        subscriber.register_topic(&topic).unwrap();
    }
    for address in addresses {
        subscriber.register_listen_address(address).unwrap();
    }
    subscriber.daemonize().unwrap();
    subscriber.wait_live(PATIENCE).unwrap();
    subscriber
}
