//! One sender and many subscribers, in a few processes.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tablecast::DbUpdate;
use tablecast::drivers::zmq::ZmqDriver;

use crate::receiving::{dispatcher, raw_subscriber, receive_each, subscriber};
use crate::sending::Other;
use crate::way::Way;
use crate::{PATIENCE, SUBSCRIBERS};

/// Processes of the subscribers.
const PROCESSES: usize = 5;
/// Updates of a round.
const COUNT: usize = 2000;

/// The time from the first send until every subscriber has every update; panics after a minute if one is missing.
pub fn fan_out(way: Way<'_>) -> Duration {
    let port = if way.is_raw() {
        "tcp://127.0.0.1:*"
    } else {
        "tcp://127.0.0.1:0"
    };
    let (mut sender, address) = Other::sender(way, "writer-1", port, COUNT, 0);
    let mut listeners: Vec<_> = (0..PROCESSES)
        .map(|_| Other::start(&["listen", way.0, &address]))
        .collect();
    assert_eq!(sender.line(), "subscribed");
    for listener in &mut listeners {
        assert_eq!(listener.line(), "ready");
    }
    let start = Instant::now();
    sender.go();
    for listener in &mut listeners {
        assert_eq!(listener.line(), "done");
    }
    let took = start.elapsed();
    sender.finish();
    took
}

/// The body of a process with a share of the subscribers.
pub fn listen(way: Way<'_>, address: &str) {
    let share = SUBSCRIBERS / PROCESSES;
    match way.is_raw() {
        true => listen_raw(way, address, share),
        false => listen_ours(way, address, share),
    }
}

fn listen_raw(way: Way<'_>, address: &str, share: usize) {
    let context = zmq::Context::new();
    let readers: Vec<_> = (0..share)
        .map(|_| {
            let socket = raw_subscriber(&context, way, address);
            let read = move || receive_each(&socket, COUNT, |_| ());
            thread::Builder::new().spawn(read).unwrap()
        })
        .collect();
    println!("ready");
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    println!("done");
}

fn listen_ours(way: Way<'_>, address: &str, share: usize) {
    let dispatcher = dispatcher();
    let (done, finished) = crossbeam_channel::bounded(1);
    let received = std::sync::atomic::AtomicUsize::new(0);
    let guard = dispatcher.on_update(move |_: &DbUpdate| {
        let before = received.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if before + 1 == share * COUNT {
            done.send(()).unwrap();
        }
    });
    let network = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", way.options()).unwrap());
    let subscribers: Vec<_> = (0..share)
        .map(|_| subscriber(way, Arc::clone(&network), &dispatcher, &[address.to_owned()]))
        .collect();
    println!("ready");
    finished.recv_timeout(PATIENCE).expect("all updates");
    println!("done");
    drop((guard, subscribers));
}
