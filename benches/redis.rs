//! The driver and the store `redis` next to the `redis` crate alone, which moves the same bytes in the same run, both
//! against the benchmark's own server.
//!
//! `cargo bench --bench redis [-- rounds]`. Every figure is the median over the rounds. The ratio is taken in each
//! round, since the machine's speed changes between them.
#![allow(missing_docs)]

mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Script, cmd, pipe};
use tablecast::codec::{Codec, Encoder};
use tablecast::config::JoinFrames;
use tablecast::queue::{Overflow, QueueOptions};
use tablecast::store::Write;
use tablecast::transport::Driver;
use tablecast::{
    Action, Database, DatabaseOptions, DbUpdate, Dispatcher, DispatcherOptions, Name, Publisher, PublisherOptions,
    Store, Subscriber, SubscriberOptions, Topic,
};

use server::Server;

/// Messages or writes of a round with a round trip for each.
const TRIPS: usize = 10_000;
/// Updates of a round without round trips.
const COUNT: usize = 200_000;
/// Rows of the listed table, and other keys.
const ROWS: usize = 10_000;
const OTHERS: usize = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(60);
const VALUE: &str = r#"{"id":"9b2e1f34","name":"vm-17","chassis":"host-3","lswitch":"net-1","version":7}"#;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(5, ""),
        [rounds] => run(rounds.parse().expect("a number of rounds"), ""),
        // For a profiler: only the benchmarks whose names begin with this.
        [rounds, only] => run(rounds.parse().expect("a number of rounds"), only),
        _ => panic!("usage: redis [rounds [what]]"),
    }
}

fn run(rounds: usize, only: &str) {
    let server = Server::start();
    println!(
        "payload: JSON {} bytes, MessagePack {} bytes; rates per second",
        payload(Codec::Json, 123_456).len(),
        payload(Codec::MessagePack, 123_456).len()
    );
    let wanted = |what: &str| what.starts_with(only);
    if wanted("publish") {
        publish(&server, rounds);
    }
    if wanted("batch") {
        batch(&server, rounds);
    }
    if wanted("receive") {
        println!("\nreceiving: the crate's get_message, which decodes nothing, and a callback's updates");
        receive(&server, rounds, Codec::Json, "updates, JSON");
        receive(&server, rounds, Codec::MessagePack, "updates, MessagePack");
    }
    if wanted("write") {
        write(&server, rounds);
    }
    if wanted("list") {
        list(rounds);
    }
}

/// Measures both in turn, and prints the medians, and that of `ours / theirs`.
fn compare(what: &str, rounds: usize, mut theirs: impl FnMut() -> f64, mut ours: impl FnMut() -> f64) {
    // The first round warms up.
    theirs();
    ours();
    let rates: Vec<(f64, f64)> = (0..rounds).map(|_| (theirs(), ours())).collect();
    let column = |pick: fn(&(f64, f64)) -> f64| median(rates.iter().map(pick).collect());
    println!(
        "  {what:34} {:>9.0}   tablecast {:>9.0}   ratio {:.2}",
        column(|rate| rate.0),
        column(|rate| rate.1),
        column(|rate| rate.1 / rate.0)
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn rate(count: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    count as f64 / start.elapsed().as_secs_f64()
}

fn update() -> DbUpdate {
    DbUpdate::new("lport", "port-00000000", Action::Set).value(VALUE)
}

/// The payload that a publisher sends for its update of this number.
fn payload(codec: Codec, seq: u64) -> Vec<u8> {
    let encoder = Encoder::new(codec, "writer-1".into(), 1);
    let mut buf = Vec::new();
    let update = update();
    encoder.begin(&update, &Topic::ALL, &mut buf);
    encoder.finish(0, update.timestamp, seq, Duration::ZERO, &mut buf);
    buf
}

fn publisher(driver: &dyn Driver) -> Publisher {
    let options = PublisherOptions {
        id: Some("writer-1".into()),
        ..PublisherOptions::default()
    };
    Publisher::new(driver, options).unwrap()
}

/// One message after the other, each confirmed.
fn publish(server: &Server, rounds: usize) {
    let mut connection = server.connect();
    // Sent in a row, they would be a burst otherwise.
    let publisher = publisher(&server.driver_with(JoinFrames::Never));
    let mut outbound = server.driver().outbound().unwrap();
    let (payload, mut update) = (payload(Codec::Json, 123_456), update());
    let mut theirs = || {
        rate(TRIPS, || {
            for _ in 0..TRIPS {
                cmd("PUBLISH").arg("D").arg(&payload).exec(&mut connection).unwrap();
            }
        })
    };
    println!("\none by one: the crate's PUBLISH, and ours");
    compare("PUBLISH, the driver alone", rounds, &mut theirs, || {
        rate(TRIPS, || {
            for _ in 0..TRIPS {
                outbound.send(b"D", &payload, PATIENCE).unwrap();
            }
        })
    });
    compare("PUBLISH, send_event", rounds, &mut theirs, || {
        rate(TRIPS, || {
            for _ in 0..TRIPS {
                // As in practice, every update is later than the one before.
                update.timestamp += 1;
                publisher.send_event(&update).unwrap();
            }
        })
    });
}

/// Many updates at once: in messages of their own, and as one; and a burst of single ones.
fn batch(server: &Server, rounds: usize) {
    let mut connection = server.connect();
    let payload = payload(Codec::Json, 123_456);
    let mut theirs = |batch: usize| {
        rate(COUNT, || {
            for _ in 0..COUNT / batch {
                let mut pipeline = pipe();
                for _ in 0..batch {
                    pipeline.cmd("PUBLISH").arg("D").arg(&payload).ignore();
                }
                pipeline.exec(&mut connection).unwrap();
            }
        })
    };
    println!("\nmany at once: the crate's pipeline, and send_batch");
    for batch in [100, 1000] {
        let updates = vec![update(); batch];
        for join_frames in [JoinFrames::Auto, JoinFrames::Always, JoinFrames::Never] {
            let publisher = publisher(&server.driver_with(join_frames));
            let what = format!("{batch}, join_frames = {join_frames}");
            compare(
                &what,
                rounds,
                || theirs(batch),
                || {
                    rate(COUNT, || {
                        for _ in 0..COUNT / batch {
                            publisher.send_batch(&Topic::ALL, &updates).unwrap();
                        }
                    })
                },
            );
        }
    }
    println!("\nin a row: the crate's pipeline of 100, and send_event");
    let (publisher, mut update) = (publisher(&server.driver()), update());
    compare(
        "updates",
        rounds,
        || theirs(100),
        || {
            rate(COUNT, || {
                for _ in 0..COUNT {
                    update.timestamp += 1;
                    publisher.send_event(&update).unwrap();
                }
            })
        },
    );
}

/// From the socket to the program. The server holds all messages before the clock starts, so that neither side waits
/// for the sender, and only the server takes processor time from the receiver.
fn receive(server: &Server, rounds: usize, codec: Codec, what: &str) {
    let mut pump = server.connect();
    let messages: Vec<Vec<u8>> = (1..=COUNT as u64).map(|seq| payload(codec, seq)).collect();
    let mut pump = || {
        for part in messages.chunks(1000) {
            let mut pipeline = pipe();
            for message in part {
                pipeline.cmd("PUBLISH").arg("D").arg(message).ignore();
            }
            pipeline.exec(&mut pump).unwrap();
        }
    };
    let pump = std::cell::RefCell::new(&mut pump);
    compare(
        what,
        rounds,
        || {
            let mut connection = server.connect();
            let mut ears = connection.as_pubsub();
            ears.subscribe("D").unwrap();
            (pump.borrow_mut())();
            rate(COUNT, || {
                for _ in 0..COUNT {
                    assert!(!ears.get_message().unwrap().get_payload_bytes().is_empty());
                }
            })
        },
        || receive_ours(server, &mut *pump.borrow_mut()),
    );
}

fn receive_ours(server: &Server, pump: &mut dyn FnMut()) -> f64 {
    let options = QueueOptions {
        overflow: Overflow::Block,
        ..QueueOptions::default()
    };
    let dispatcher = Dispatcher::new(DispatcherOptions {
        queue: options,
        ..DispatcherOptions::default()
    })
    .unwrap();
    let (go, gate) = crossbeam_channel::bounded::<()>(1);
    let (done, finished) = crossbeam_channel::bounded(1);
    let received = std::sync::atomic::AtomicUsize::new(0);
    let guard = dispatcher.on_update(move |_: &DbUpdate| {
        let before = received.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if before == 0 {
            // The queue fills up, and then nothing is read until all messages are there.
            gate.recv().unwrap();
        }
        if before + 1 == COUNT {
            done.send(Instant::now()).unwrap();
        }
    });
    let subscriber = Subscriber::new(
        Arc::new(server.driver()),
        dispatcher.queue(),
        SubscriberOptions::default(),
    );
    subscriber.register_topic(&Topic::ALL).unwrap();
    subscriber.register_listen_address(&server.address()).unwrap();
    subscriber.daemonize().unwrap();
    subscriber.wait_live(PATIENCE).unwrap();
    pump();
    // Updates decoded before the clock started do not count; the time to handle them from here on does.
    let early = subscriber.stats().decoded as usize;
    let start = Instant::now();
    go.send(()).unwrap();
    let end = finished.recv_timeout(PATIENCE).expect("all updates");
    drop(guard);
    (COUNT - early) as f64 / end.duration_since(start).as_secs_f64()
}

/// A published write: one step, or two if the row is read first to learn its topic, against two round trips.
fn write(server: &Server, rounds: usize) {
    let mut connection = server.connect();
    let payload = payload(Codec::Json, 123_456);
    let keys: Vec<Name> = (0..1000).map(|i| format!("port-{i:08}").into()).collect();
    let database = Database::new(
        Arc::new(server.store()),
        publisher(&server.driver()),
        DatabaseOptions::default(),
    );
    let topic = Topic::ALL;
    for key in &keys {
        database.write(&Write::create("lport", key, VALUE), 5).unwrap();
    }
    let mut theirs = || {
        rate(TRIPS, || {
            for i in 0..TRIPS {
                let key: &str = &keys[i % keys.len()];
                cmd("SET").arg(key).arg(VALUE).exec(&mut connection).unwrap();
                cmd("PUBLISH").arg("D").arg(&payload).exec(&mut connection).unwrap();
            }
        })
    };
    let ours = |topic: Option<&Topic>| {
        rate(TRIPS, || {
            for i in 0..TRIPS {
                let mut write = Write::set("lport", &keys[i % keys.len()], VALUE);
                write.topic = topic;
                database.write(&write, 5).unwrap();
            }
        })
    };
    println!("\nwriting and publishing: the crate's SET and then PUBLISH, and Database::write");
    compare("writes", rounds, &mut theirs, || ours(Some(&topic)));
    compare("writes that name no topic", rounds, &mut theirs, || ours(None));
}

/// The cost of a listing does not depend on other keys in the server.
fn list(rounds: usize) {
    let (alone, crowded) = (Server::start(), Server::start());
    let stores = [&alone, &crowded].map(|server| {
        let store = server.store();
        for row in 0..ROWS {
            store
                .create("lport", &format!("port-{row:08}"), VALUE, &Topic::ALL)
                .unwrap();
        }
        store
    });
    let fill = Script::new("for i = 1, 10000 do redis.call('SET', ARGV[1] .. i, 'x') end");
    let mut connection = crowded.connect();
    for part in 0..OTHERS / 10_000 {
        fill.arg(format!("other{part}:")).invoke::<()>(&mut connection).unwrap();
    }
    let [alone, crowded] = stores.each_ref().map(|store| {
        move || {
            rate(10 * ROWS, || {
                for _ in 0..10 {
                    assert_eq!(store.entries("lport", None).map(Result::unwrap).count(), ROWS);
                }
            })
        }
    });
    println!("\nlisting {ROWS} rows: alone in the server, and next to {OTHERS} other keys");
    compare("rows", rounds, alone, crowded);
}
