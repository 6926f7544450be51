//! Starting and stopping in every state, over ZeroMQ.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{eventually, free_port, within};
use crate::rig::{LONG, Rig, quickly, send, topic, update};
use crate::{driver, publisher};
use crossbeam_channel::bounded;
use tablecast::drivers::memory::MemoryDriver;
use tablecast::queue::{Overflow, QueueOptions};
use tablecast::transport::{Driver, Inbound, Outbound, Wake};
use tablecast::{AddressState, ErrorKind, Publisher, PublisherOptions, Result, SubscriberOptions};

const SECOND: Duration = Duration::from_secs(1);

fn rig() -> Rig {
    Rig::new(&driver("tcp://127.0.0.1:0"))
}

fn start(rig: &Rig, name: &str, address: &str) {
    rig.subscriber.register_topic(&topic(name)).unwrap();
    rig.subscriber.register_listen_address(address).unwrap();
    rig.subscriber.daemonize().unwrap();
}

/// Stops, starts, stops and drops a running subscriber, with a time limit for each.
fn ends_promptly(rig: Rig) {
    quickly(SECOND, "stop", || rig.subscriber.stop());
    // A caller that begins to wait just now is not left waiting.
    let waiting = quickly(SECOND, "wait_live", || rig.subscriber.wait_live(LONG));
    assert_eq!(waiting.unwrap_err().kind(), ErrorKind::Stopped);
    rig.subscriber.daemonize().unwrap();
    let Rig {
        subscriber, dispatcher, ..
    } = rig;
    quickly(SECOND, "drop", || drop(subscriber));
    quickly(SECOND, "drop of the dispatcher", || drop(dispatcher));
}

#[test]
fn stops_while_nobody_serves() {
    within(LONG, || {
        let rig = rig();
        let address = format!("tcp://127.0.0.1:{}", free_port());
        start(&rig, "D", &address);
        let error = rig.subscriber.wait_live(Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains(&address), "{error}");
        assert_eq!(rig.peers()[0].1, AddressState::Connecting);
        ends_promptly(rig);
    });
}

#[test]
fn stops_while_the_peer_never_speaks() {
    within(LONG, || {
        let rig = rig();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        start(&rig, "D", &format!("tcp://{}", listener.local_addr().unwrap()));
        let accepted = listener.accept().unwrap();
        assert_eq!(rig.peers()[0].1, AddressState::Connecting);
        ends_promptly(rig);
        drop(accepted);
    });
}

#[test]
fn stops_while_the_queue_is_full() {
    within(Duration::from_secs(20), || {
        for overflow in [Overflow::Coalesce, Overflow::DropAndSync, Overflow::Block] {
            let queue = QueueOptions {
                capacity: 10,
                overflow,
                ..QueueOptions::default()
            };
            let publisher = publisher("tcp://127.0.0.1:0");
            let rig = Rig::with(&driver("tcp://127.0.0.1:0"), SubscriberOptions::default(), queue);
            let (entered, blocked) = bounded(1);
            let (release, released) = bounded::<()>(0);
            let block = move |_: &tablecast::DbUpdate| {
                let _ = entered.try_send(());
                let _ = released.recv();
            };
            rig.dispatcher.on_update(block).detach();
            rig.listen(&["D"], &publisher.address().unwrap());
            for number in 0..1000 {
                send(&publisher, "D", &number.to_string());
            }
            blocked.recv_timeout(LONG).unwrap();
            // Full, except for the one that the callback has.
            eventually(LONG, || rig.dispatcher.stats().queue.depth >= 9);
            quickly(SECOND, "stop", || rig.subscriber.stop());
            rig.subscriber.daemonize().unwrap();
            quickly(SECOND, "stop of the dispatcher", || rig.dispatcher.stop());
            ends_promptly(rig);
            drop(release);
        }
    });
}

#[test]
fn stops_from_inside_a_callback() {
    within(LONG, || {
        let publisher = publisher("tcp://127.0.0.1:0");
        let rig = rig();
        let (done, stopped) = bounded(1);
        let (subscriber, dispatcher) = (Arc::downgrade(&rig.subscriber), rig.dispatcher.handle());
        let stop = move |_: &tablecast::DbUpdate| {
            let start = Instant::now();
            if let Some(subscriber) = subscriber.upgrade() {
                subscriber.stop();
            }
            dispatcher.stop();
            let _ = done.send(start.elapsed());
        };
        rig.dispatcher.on_update(stop).detach();
        rig.listen(&["D"], &publisher.address().unwrap());
        send(&publisher, "D", "1");
        assert!(stopped.recv_timeout(LONG).unwrap() < SECOND);
        assert!(!rig.subscriber.is_running());
        quickly(SECOND, "drop", || drop(rig));
    });
}

#[test]
fn drops_from_inside_a_callback() {
    within(LONG, || {
        let publisher = publisher("tcp://127.0.0.1:0");
        let rig = rig();
        rig.listen(&["D"], &publisher.address().unwrap());
        let handle = rig.dispatcher.handle();
        let all = std::sync::Mutex::new(Some(rig));
        let (done, dropped) = bounded(1);
        let drop_all = move |_: &tablecast::DbUpdate| {
            let rig = all.lock().unwrap().take();
            if let Some(rig) = rig {
                let start = Instant::now();
                drop(rig);
                let _ = done.send(start.elapsed());
            }
        };
        handle.on_update(drop_all).detach();
        send(&publisher, "D", "1");
        assert!(dropped.recv_timeout(LONG).unwrap() < SECOND);
    });
}

#[test]
fn run_is_stopped_from_another_thread() {
    within(LONG, || {
        let publisher = publisher("tcp://127.0.0.1:0");
        let rig = rig();
        rig.subscriber.register_topic(&topic("D")).unwrap();
        rig.subscriber
            .register_listen_address(&publisher.address().unwrap())
            .unwrap();
        for _ in 0..3 {
            let subscriber = Arc::clone(&rig.subscriber);
            let runner = std::thread::Builder::new().spawn(move || subscriber.run()).unwrap();
            eventually(LONG, || rig.subscriber.is_running());
            rig.subscriber.wait_live(LONG).unwrap();
            assert_eq!(rig.subscriber.run().unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(rig.subscriber.daemonize().unwrap_err().kind(), ErrorKind::InvalidInput);
            rig.only("1", || send(&publisher, "D", "1"));
            quickly(SECOND, "stop", || rig.subscriber.stop());
            assert!(!rig.subscriber.is_running());
            runner.join().unwrap().unwrap();
        }
    });
}

/// The hook runs on the subscriber's own thread.
#[test]
fn stops_from_inside_the_hook() {
    within(LONG, || {
        let (done, stopped) = bounded(1);
        let subscriber: Arc<std::sync::OnceLock<std::sync::Weak<tablecast::Subscriber>>> = Arc::default();
        let itself = Arc::clone(&subscriber);
        let hook = move |_: &tablecast::Error| {
            if let Some(subscriber) = itself.get().and_then(std::sync::Weak::upgrade) {
                let start = Instant::now();
                subscriber.stop();
                let _ = done.try_send(start.elapsed());
            }
        };
        let options = SubscriberOptions {
            hook: Some(Arc::new(hook)),
            ..SubscriberOptions::default()
        };
        let rig = Rig::with(&driver("tcp://127.0.0.1:0"), options, QueueOptions::default());
        subscriber.set(Arc::downgrade(&rig.subscriber)).unwrap();
        // There is no such host, so connecting fails.
        rig.subscriber
            .register_listen_address("ipc:///no/such/folder/socket")
            .unwrap();
        rig.subscriber
            .register_listen_address("@ipc:///no/such/folder/socket")
            .unwrap();
        rig.subscriber.daemonize().unwrap();
        assert!(stopped.recv_timeout(LONG).unwrap() < SECOND);
        eventually(SECOND, || !rig.subscriber.is_running());
    });
}

#[test]
fn a_publisher_with_unsent_messages_is_dropped_in_time() {
    within(LONG, || {
        let publisher = publisher("tcp://127.0.0.1:0");
        let context = zmq::Context::new();
        // A peer that subscribes and then reads nothing.
        let stopped = context.socket(zmq::SUB).unwrap();
        stopped.set_rcvhwm(1).unwrap();
        stopped.set_linger(0).unwrap();
        stopped.connect(&publisher.address().unwrap()).unwrap();
        stopped.set_subscribe(b"D").unwrap();
        publisher.wait_subscribers(1, LONG).unwrap();
        let large = update("large").value("v".repeat(1 << 20));
        for _ in 0..30 {
            publisher.send_event(&large).unwrap();
        }
        quickly(SECOND, "drop", || drop(publisher));
    });
}

/// Its topics come one by one, behind that of the hellos, and its question behind them.
#[test]
fn a_subscriber_counts_when_it_asks_and_hears_a_goodbye_before() {
    within(LONG, || {
        let hello = "\u{10FFFF}tablecast/hello".as_bytes();
        let probe = "\u{10FFFF}tablecast/probe/1/1".as_bytes();
        for asks in [true, false] {
            let publisher = publisher("tcp://127.0.0.1:0");
            let context = zmq::Context::new();
            let socket = context.socket(zmq::SUB).unwrap();
            socket.set_rcvtimeo(10_000).unwrap();
            socket.connect(&publisher.address().unwrap()).unwrap();
            socket.set_subscribe(hello).unwrap();
            socket.set_subscribe(b"D").unwrap();
            publisher.wait_subscribed(&topic("D"), LONG).unwrap();
            let early = publisher.wait_subscribers(1, Duration::ZERO).unwrap_err();
            assert_eq!(early.kind(), ErrorKind::Timeout);
            if asks {
                socket.set_subscribe(probe).unwrap();
                publisher.wait_subscribers(1, LONG).unwrap();
            }
            drop(publisher);
            let is_last =
                |frames: &[Vec<u8>]| frames[0] == hello && frames[1].windows(7).any(|part| part == b"goodbye");
            while !is_last(&socket.recv_multipart(0).unwrap()) {}
        }
    });
}

#[test]
fn what_was_sent_before_the_drop_arrives() {
    within(LONG, || {
        let publisher = publisher("tcp://127.0.0.1:0");
        let rig = rig();
        rig.listen(&["D"], &publisher.address().unwrap());
        for key in 0..2000 {
            send(&publisher, "D", &key.to_string());
        }
        drop(publisher);
        for key in 0..2000 {
            assert_eq!(rig.next_key(), key.to_string());
        }
    });
}

/// Topics and addresses come and go in every state.
#[test]
fn registers_in_every_state() {
    within(LONG, || {
        let (first, second) = (publisher("tcp://127.0.0.1:0"), publisher("tcp://127.0.0.1:0"));
        let [one, two] = [&first, &second].map(|publisher| publisher.address().unwrap());
        let rig = rig();
        assert!(rig.subscriber.register_topic(&topic("a")).unwrap());
        assert!(rig.subscriber.unregister_topic(&topic("a")));
        assert!(rig.subscriber.register_listen_address(&one).unwrap());
        assert!(!rig.subscriber.register_listen_address(&one).unwrap());
        assert!(rig.subscriber.unregister_listen_address(&one));
        for wrong in ["", "tcp://", "nowhere", "tcp://host", "ftp://host:1"] {
            let error = rig.subscriber.register_listen_address(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        rig.listen(&["b"], &two);
        send(&second, "a", "lost");
        rig.only("1", || send(&second, "b", "1"));
        rig.listen(&["a"], &one);
        rig.only("2", || send(&first, "a", "2"));
        rig.subscriber.stop();
        assert!(rig.subscriber.unregister_topic(&topic("b")));
        assert!(rig.subscriber.unregister_listen_address(&two));
        rig.listen(&["c"], &one);
        send(&first, "b", "lost");
        rig.only("3", || send(&first, "c", "3"));
        assert_eq!(rig.peers(), [(one.clone(), AddressState::Live)]);
    });
}

/// A driver that wakes late, so that commands and input are there together.
#[derive(Debug)]
struct Drowsy(MemoryDriver, Arc<AtomicBool>);

struct DrowsyWake(Arc<dyn Wake>, Arc<AtomicBool>);

impl Wake for DrowsyWake {
    fn wake(&self) {
        if !self.1.load(Ordering::Relaxed) {
            self.0.wake();
        }
    }
}

impl Driver for Drowsy {
    fn outbound(&self) -> Result<Box<dyn Outbound>> {
        self.0.outbound()
    }

    fn inbound(&self) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)> {
        let (inbound, wake) = self.0.inbound()?;
        Ok((inbound, Arc::new(DrowsyWake(wake, Arc::clone(&self.1)))))
    }

    fn check_address(&self, address: &str) -> Result<()> {
        self.0.check_address(address)
    }
}

#[test]
fn of_a_topic_that_is_unregistered_nothing_comes_any_more() {
    within(LONG, || {
        let asleep = Arc::new(AtomicBool::new(false));
        let memory = MemoryDriver::new("memory://x").unwrap();
        let driver: Arc<dyn Driver> = Arc::new(Drowsy(memory, Arc::clone(&asleep)));
        let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
        let rig = Rig::new(&driver);
        rig.listen(&["a", "b"], "memory://x");
        rig.only("1", || send(&publisher, "a", "1"));
        asleep.store(true, Ordering::Relaxed);
        assert!(rig.subscriber.unregister_topic(&topic("a")));
        send(&publisher, "a", "lost");
        rig.only("2", || send(&publisher, "b", "2"));
        asleep.store(false, Ordering::Relaxed);
    });
}
