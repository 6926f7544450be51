//! One server that comes and goes.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use tablecast::config::{Config, Source};
use tablecast::queue::{Overflow, QueueOptions};
use tablecast::{AddressState, DbUpdate, ErrorKind, Node, Publisher, PublisherOptions, SubscriberOptions, SyncReason};

use crate::common::{Stopwatch, eventually, pass, within};
use crate::rig::{LONG, Rig, quickly, send, topic, update};
use crate::servers::Server;
use crate::{
    SECOND, SILENCE, driver, hasty, listening, options, publisher, start, subscriber, syncs, told, told_with, wary,
    with,
};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_server_comes_back_with_every_topic() {
    within(LIMIT, || {
        let mut server = Server::start();
        let address = server.address();
        let driver = driver(&address);
        let publisher = publisher(&driver);
        let (rig, errors) = told(&driver);
        let names: Vec<_> = (0..1500).map(|number| format!("tenant{number}")).collect();
        let topics: Vec<_> = names.iter().map(String::as_str).collect();
        rig.listen(&topics, &address);
        syncs(&rig, &["connected"]);
        for round in 0..3 {
            server.kill();
            let lost = rig.next_sync();
            assert_eq!(
                lost,
                SyncReason::AddressLost {
                    address: address.as_str().into()
                }
            );
            assert_eq!(rig.peers()[0].1, AddressState::Connecting);
            // Topics registered or unregistered while it is away count when it is back.
            let name = format!("new{round}");
            rig.subscriber.register_topic(&topic(&name)).unwrap();
            rig.subscriber.unregister_topic(&topic("tenant0"));
            server.restart();
            rig.subscriber.wait_live(LONG).unwrap();
            syncs(&rig, &["reconnected"]);
            for name in names[1..].iter().chain([&name]) {
                send(&publisher, name, name);
            }
            let mut came: Vec<_> = names.iter().map(|_| rig.next_key()).collect();
            let mut sent: Vec<_> = names[1..].iter().chain([&name]).cloned().collect();
            came.sort_unstable();
            sent.sort_unstable();
            assert_eq!(came, sent);
            // The hook is called once with the reason why it does not come back.
            let reported: Vec<_> = errors.try_iter().collect();
            assert!(
                reported.len() <= 1 && reported.iter().all(|(kind, _)| *kind == ErrorKind::Transport),
                "{reported:?}"
            );
        }
    });
}

#[test]
fn a_publisher_returns_the_error_and_repairs_the_connection() {
    within(LIMIT, || {
        let mut server = Server::start();
        let driver = driver(&server.address());
        let rig = subscriber(&driver);
        rig.listen(&["D"], &server.address());
        let options = PublisherOptions {
            send_timeout: 3 * SECOND,
            // A hello that is being sent is waited for as well.
            hello_interval: Duration::from_secs(60),
            ..PublisherOptions::default()
        };
        let publisher = Publisher::new(&*driver, options).unwrap();
        let mut refused = 0;
        for (round, sends) in [(1, 2), (2, 1)] {
            rig.only("before", || send(&publisher, "D", "before"));
            server.kill();
            for _ in 0..sends {
                let sent = quickly(5 * SECOND, "send", || publisher.send_event(&update("k")));
                let error = sent.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                assert!(error.to_string().contains(&server.host()), "{error}");
            }
            server.restart();
            rig.subscriber.wait_live(LONG).unwrap();
            // Already the first one after it arrives.
            rig.only("after", || send(&publisher, "D", "after"));
            refused += sends;
            let stats = publisher.stats();
            assert_eq!((stats.sent, stats.failed), (2 * round, refused));
        }
    });
}

#[test]
fn a_publisher_that_was_idle_notices_a_restart() {
    within(LIMIT, || {
        let mut server = Server::start();
        let publisher = publisher(&driver(&server.address()));
        for _ in 0..3 {
            send(&publisher, "D", "k");
            pass(Duration::from_millis(20));
            server.kill();
            server.restart();
        }
        send(&publisher, "D", "k");
        assert_eq!(publisher.stats().failed, 0);
    });
}

/// For a subscriber whose driver notices a silence first. It reports the loss within a part of this.
fn unhurried() -> SubscriberOptions {
    SubscriberOptions {
        hello_interval: wary().heartbeat_timeout + SECOND / 2,
        ..SubscriberOptions::default()
    }
}

/// The server takes the message but does not confirm it, so it may be published.
#[test]
fn a_server_that_hangs_is_noticed_on_both_ends() {
    within(LIMIT, || {
        let server = Server::start();
        let driver = with(&server.address(), wary());
        // A question about the server's health, or a hello, would notice before the message.
        let mut trusting = hasty();
        trusting.heartbeat_interval = LONG;
        let quiet = PublisherOptions {
            hello_interval: 60 * SECOND,
            ..PublisherOptions::default()
        };
        let publisher = Publisher::new(&*with(&server.address(), trusting), quiet).unwrap();
        let (rig, errors) = told_with(&driver, unhurried());
        rig.listen(&["D"], &server.address());
        rig.only("1", || send(&publisher, "D", "1"));
        syncs(&rig, &["connected"]);
        server.hang();
        let sent = quickly(4 * SECOND, "send", || publisher.send_event(&update("2")));
        let error = sent.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
        let error = publisher.send_event(&update("3")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        syncs(&rig, &["address-lost"]);
        // It accepts connections but does not answer, so it is not live.
        let error = rig.subscriber.wait_live(2 * SILENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(errors.recv_timeout(LONG).unwrap().0, ErrorKind::Timeout);
        server.resume();
        rig.subscriber.wait_live(LONG).unwrap();
        syncs(&rig, &["reconnected"]);
        send(&publisher, "D", "4");
        // The second one may come late; one that was certainly refused does not come.
        let mut keys = vec![rig.next_key()];
        if keys == ["2"] {
            keys.push(rig.next_key());
        }
        assert_eq!(keys.last().unwrap(), "4");
    });
}

#[test]
fn silence_is_noticed_within_the_heartbeat_timeout() {
    within(LIMIT, || {
        let server = Server::start();
        let options = wary();
        let silence = options.heartbeat_timeout;
        let driver = with(&server.address(), options);
        let rig = Rig::with(&driver, unhurried(), QueueOptions::default());
        rig.listen(&["D"], &server.address());
        syncs(&rig, &["connected"]);
        server.hang();
        let start = Instant::now();
        quickly(silence + unhurried().hello_interval, "noticing", || {
            syncs(&rig, &["address-lost"]);
        });
        let took = start.elapsed();
        println!("a hung server is noticed after {took:?}");
        assert!(took > silence / 2, "{took:?}");
        quickly(SECOND, "stop", || rig.subscriber.stop());
    });
}

/// A subscriber that is busy for longer than the timeout has not lost its server.
#[test]
fn a_busy_subscriber_keeps_its_connection() {
    within(LIMIT, || {
        let server = Server::start();
        let publisher = publisher(&driver(&server.address()));
        let options = wary();
        let silence = options.heartbeat_timeout;
        let driver = with(&server.address(), options);
        let queue = QueueOptions {
            capacity: 4,
            overflow: Overflow::Block,
            ..QueueOptions::default()
        };
        let rig = Rig::with(&driver, unhurried(), queue);
        let (block, blocked) = crossbeam_channel::bounded::<()>(0);
        let guard = rig.dispatcher.on_table("row", move |_: &tablecast::DbUpdate| {
            let _ = blocked.recv();
        });
        rig.listen(&["D"], &server.address());
        for number in 0..1000 {
            send(&publisher, "D", &number.to_string());
        }
        pass(silence + SECOND);
        drop(block);
        for _ in 0..1000 {
            rig.next();
        }
        syncs(&rig, &["connected"]);
        drop(guard);
    });
}

/// The server closes the connection of a subscriber that does not read.
#[test]
fn a_subscriber_that_is_too_slow_is_told() {
    within(LIMIT, || {
        let server = Server::with(&["--client-output-buffer-limit", "pubsub 1mb 1mb 1"]);
        let driver = driver(&server.address());
        let publisher = publisher(&driver);
        let queue = QueueOptions {
            capacity: 4,
            overflow: Overflow::Block,
            ..QueueOptions::default()
        };
        let rig = Rig::with(&driver, listening(), queue);
        let (block, blocked) = crossbeam_channel::bounded::<()>(0);
        let guard = rig.dispatcher.on_table("row", move |_: &tablecast::DbUpdate| {
            let _ = blocked.recv();
        });
        rig.listen(&["D"], &server.address());
        syncs(&rig, &["connected"]);
        // So many that the subscriber has to wait for the callback.
        for _ in 0..1000 {
            publisher.send_event(&update("small")).unwrap();
        }
        let large = update("large").value("v".repeat(1 << 20));
        while server.clients() == 2 {
            publisher.send_event(&large).unwrap();
        }
        drop(block);
        syncs(&rig, &["address-lost", "reconnected"]);
        send(&publisher, "D", "after");
        while rig.next_key() != "after" {}
        drop(guard);
    });
}

#[test]
fn a_message_over_the_limit_costs_nothing_else() {
    within(LIMIT, || {
        let server = Server::start();
        let mut options = options();
        options.max_frame_bytes = 1 << 20;
        let driver = with(&server.address(), options);
        let publisher = publisher(&driver);
        let rig = subscriber(&driver);
        rig.listen(&["D"], &server.address());
        for round in 1..4 {
            rig.only("small", || send(&publisher, "D", "small"));
            let large = update("large").value("v".repeat(5 << 20));
            publisher.send_event(&large).unwrap();
            rig.only("after", || send(&publisher, "D", "after"));
            eventually(LONG, || rig.subscriber.stats().malformed == round);
        }
        // It is lost, which the numbers show.
        eventually(LONG, || rig.subscriber.stats().lost == 3);
        assert_eq!(rig.next_sync().as_str(), "connected");
        assert_eq!(rig.next_sync().as_str(), "gap");
        assert!(rig.syncs.try_iter().all(|sync| sync.as_str() == "gap"));
    });
}

#[test]
fn an_idle_subscriber_takes_a_topic_at_once_and_misses_nothing() {
    within(LIMIT, || {
        let server = Server::start();
        let driver = driver(&server.address());
        let rig = subscriber(&driver);
        rig.listen(&["D"], &server.address());
        let sender = {
            let publisher = publisher(&driver);
            let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
            let send_on = move || {
                let mut sent = 0;
                while stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
                    send(&publisher, "D", "steady");
                    sent += 1;
                }
                sent
            };
            (std::thread::Builder::new().spawn(send_on).unwrap(), stop)
        };
        let other = publisher(&driver);
        let mut times = Vec::new();
        let watch = Stopwatch::start();
        for number in 0..100 {
            let name = format!("topic{number}");
            let start = Instant::now();
            rig.subscriber.register_topic(&topic(&name)).unwrap();
            rig.subscriber.wait_live(LONG).unwrap();
            times.push(start.elapsed());
            send(&other, &name, &name);
        }
        watch.assert_within(5 * SECOND, "a hundred topics");
        drop(sender.1);
        let steady: usize = sender.0.join().unwrap();
        send(&other, "D", "last");
        let mut counts = (0, 0);
        loop {
            match rig.next_key().as_str() {
                "steady" => counts.0 += 1,
                "last" if counts == (steady, 100) => break,
                "last" => {}
                _ => counts.1 += 1,
            }
            if counts == (steady, 100) {
                break;
            }
        }
        times.sort_unstable();
        println!(
            "a topic was in force after {:?}, {:?} at worst, beside {steady} messages",
            times[50], times[99]
        );
        syncs(&rig, &["connected"]);
    });
}

/// An address without a server holds up no other.
#[test]
fn an_address_without_a_server_disturbs_nobody() {
    within(LIMIT, || {
        let server = Server::start();
        let driver = driver(&server.address());
        let publisher = publisher(&driver);
        let (rig, errors) = told(&driver);
        let nobody = format!("redis://127.0.0.1:{}", crate::common::free_port());
        rig.listen(&["D"], &server.address());
        rig.subscriber.register_listen_address(&nobody).unwrap();
        let (kind, text) = errors.recv_timeout(LONG).unwrap();
        assert_eq!(kind, ErrorKind::Transport);
        assert!(
            nobody.contains(text.split("Redis at ").nth(1).unwrap().split(':').next().unwrap()),
            "{text}"
        );
        for number in 0..1000 {
            send(&publisher, "D", &number.to_string());
        }
        quickly(3 * SECOND, "a thousand updates", || {
            (0..1000).for_each(|_| drop(rig.next()));
        });
        assert!(errors.is_empty(), "it is reported once");
        let states: Vec<_> = rig.peers().into_iter().map(|(_, state)| state).collect();
        assert!(states.contains(&AddressState::Live) && states.contains(&AddressState::Connecting));
        quickly(SECOND, "stop", || rig.subscriber.stop());
    });
}

/// Meanwhile it takes connections and subscriptions, and confirms none.
#[test]
fn a_server_that_loads_its_data_is_not_connected() {
    within(LIMIT, || {
        let server = Server::with(&["--enable-debug-command", "yes", "--rdbcompression", "no"]);
        let fill = "for key = 1, 250 do redis.call('SET', key, string.rep('x', 4096)) end";
        let () = server.ask(&["EVAL", fill, "0"]);
        let () = server.ask(&["CONFIG", "SET", "key-load-delay", "25000"]);
        let () = server.ask(&["CONFIG", "SET", "loading-process-events-interval-bytes", "1024"]);
        let mut client = TcpStream::connect(server.host()).unwrap();
        client.write_all(b"DEBUG RELOAD\r\n").unwrap();
        let is_loading = || server.info("persistence", "loading").as_deref() == Some("1");
        eventually(LONG, is_loading);
        let (rig, errors) = told(&driver(&server.address()));
        start(&rig, &["D"], &server.address());
        let start = Instant::now();
        while is_loading() {
            assert_ne!(rig.peers()[0].1, AddressState::NoHello);
            pass(SECOND / 50);
        }
        // For longer than the subscriber waits for an answer.
        assert!(start.elapsed() > SILENCE, "{:?}", start.elapsed());
        rig.subscriber.wait_live(LONG).unwrap();
        syncs(&rig, &["connected"]);
        let (kind, text) = errors.recv_timeout(LONG).unwrap();
        assert!(kind == ErrorKind::Transport && text.contains("LOADING"), "{text}");
        let again = errors.try_iter().find(|(_, text)| text.contains("LOADING"));
        assert_eq!(again, None, "it is reported once");
    });
}

/// Waits until all connections are at the first one, since those that look whether the other one is a master are short.
fn await_clients(first: &Server, second: &Server) {
    eventually(LONG, || (first.clients(), second.clients()) == (2, 0));
}

/// The other hosts are tried when one is gone.
#[test]
fn another_host_is_taken_when_one_is_gone() {
    within(LIMIT, || {
        let (mut first, second) = (Server::start(), Server::start());
        // A replica does not suffice: messages published there reach no other server.
        let () = second.ask(&["REPLICAOF", "127.0.0.1", &first.port().to_string()]);
        let address = format!("redis://{},{}", second.host(), first.host());
        let driver = with(&address, wary());
        let publisher = publisher(&driver);
        let rig = subscriber(&driver);
        rig.listen(&["D"], &address);
        rig.only("1", || send(&publisher, "D", "1"));
        await_clients(&first, &second);
        first.kill();
        let () = second.ask(&["REPLICAOF", "NO", "ONE"]);
        syncs(&rig, &["connected", "address-lost", "reconnected"]);
        rig.only("2", || send(&publisher, "D", "2"));
        // A master that becomes a replica keeps its connections, but is left.
        first.restart();
        let () = second.ask(&["REPLICAOF", "127.0.0.1", &first.port().to_string()]);
        syncs(&rig, &["address-lost", "reconnected"]);
        rig.only("3", || send(&publisher, "D", "3"));
        await_clients(&first, &second);
    });
}

#[test]
fn the_options_alone_are_enough() {
    within(LIMIT, || {
        let server = Server::start();
        let mut config = Config::default();
        for (name, value) in [
            ("pub_sub_driver", "redis"),
            ("remote_db_hosts", &server.host()),
            ("pub_sub_use_multiproc", "false"),
            // A busy machine may hold up the server.
            ("send_timeout_ms", "10000"),
            ("heartbeat_timeout_ms", "10000"),
            ("hello_interval_ms", "3000"),
        ] {
            config.set(name, value, Source::Program).unwrap();
        }
        config.validate().unwrap();
        assert_eq!(config.listen_addresses().unwrap(), [server.address()]);
        let node = Node::open(&config).unwrap();
        let (sender, updates) = unbounded::<DbUpdate>();
        node.dispatcher().unwrap().on_update(sender).detach();
        let subscriber = node.subscriber().unwrap();
        subscriber.wait_live(LONG).unwrap();
        let publisher = node.publisher().unwrap();
        assert_eq!(publisher.address(), Some(server.address()));
        send(&publisher, "D", "1");
        assert_eq!(updates.recv_timeout(LONG).unwrap().key, "1");
        for wrong in ["tcp://127.0.0.1:1", "redis://", "redis://host:x", "redis://a:b@host:y"] {
            let error = subscriber.register_listen_address(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    });
}
