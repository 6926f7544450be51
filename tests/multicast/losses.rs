//! A publisher and three subscribers over a network that loses packets, is cut, or has a receiver that is stopped.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::transport::Driver;
use tablecast::{Action, DbUpdate, ErrorKind, Publisher, PublisherOptions, Topic};

use crate::LIMIT;
use crate::common::{eventually, within};
use crate::network::{ADDRESS, HERE, alone};
use crate::process::{Process, run, tablecast};
use crate::watch::{END, GROUP, TOPIC, Watch, micros};

/// The interval between two updates.
const PACE: Duration = Duration::from_micros(500);

/// More than what is asserted takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

fn driver(interface: &str, options: ZmqOptions) -> ZmqDriver {
    ZmqDriver::new(&format!("epgm://{interface};{GROUP}"), options).unwrap()
}

fn publisher(interface: &str, options: ZmqOptions) -> Publisher {
    Publisher::new(&driver(interface, options), PublisherOptions::default()).unwrap()
}

fn send(publisher: &Publisher, topic: &str, table: &str, number: u64) {
    let update = DbUpdate::new(table, number.to_string(), Action::Set).value(micros().to_string());
    publisher.send_event(&update.topic(Topic::new(topic).unwrap())).unwrap();
}

/// Sends updates with these numbers at the pace, and others on topics that look alike.
fn send_paced(publisher: &Publisher, numbers: RangeInclusive<u64>, watches: &mut [Watch]) {
    let mut due = Instant::now();
    for number in numbers {
        send(publisher, TOPIC, "row", number);
        if number % 10 == 0 {
            send(publisher, "tenant2", "row", number);
            send(publisher, "ten", "row", number);
        }
        due += PACE;
        watches[2].read_by(due);
    }
    let took = &mut watches[2].took;
    took.sort_unstable();
    let [p50, p99] = [0.5, 0.99].map(|part| took.get((took.len() as f64 * part) as usize));
    println!("microseconds: p50 {p50:?}, p99 {p99:?}");
    took.clear();
}

/// Sends further updates until every watch has one, and has reported what it misses.
fn finish(publisher: &Publisher, count: u64, watches: &mut [Watch]) {
    let (mut number, mut due) = (count, Instant::now());
    eventually(LONG, || {
        if Instant::now() >= due {
            number += 1;
            send(publisher, TOPIC, END, number);
            due = Instant::now() + Duration::from_millis(100);
        }
        watches.iter_mut().all(Watch::is_complete)
    });
}

#[test]
fn lost_packets_are_sent_again_or_told() {
    const COUNT: u64 = 5_000;
    within(LIMIT, || {
        alone("losses::lost_packets_are_sent_again_or_told", |cable| {
            let publisher = publisher(HERE, ZmqOptions::default());
            let mut watches = [(); 3].map(|()| Watch::live(cable, &[]));
            let unknown = publisher
                .wait_subscribed(&Topic::new(TOPIC).unwrap(), LONG)
                .unwrap_err();
            assert_eq!(unknown.kind(), ErrorKind::Unsupported, "{unknown}");
            send_paced(&publisher, 1..=1_000, &mut watches);
            cable.lose(0.01);
            send_paced(&publisher, 1_001..=COUNT, &mut watches);
            finish(&publisher, COUNT, &mut watches);
            let lost = cable.lose(0.0);
            assert!(lost > 0);
            println!("{COUNT} updates sent, {lost} packets lost");
            watches.iter().for_each(|watch| println!("{}", watch.report()));
        });
    });
}

#[test]
fn a_receiver_that_was_stopped_is_told() {
    const COUNT: u64 = 2_000;
    within(LIMIT, || {
        alone("losses::a_receiver_that_was_stopped_is_told", |cable| {
            // Less than a receiver misses.
            let options = ZmqOptions {
                multicast_recovery: Duration::from_millis(10),
                ..ZmqOptions::default()
            };
            let publisher = publisher(HERE, options);
            let mut watches = [(); 3].map(|()| Watch::live(cable, &["--multicast-recovery-ms", "10"]));
            watches[0].signal("STOP");
            send_paced(&publisher, 1..=COUNT, &mut watches);
            watches[0].signal("CONT");
            finish(&publisher, COUNT, &mut watches);
            watches.iter().for_each(|watch| println!("{}", watch.report()));
            assert!(watches[0].missed() > 0);
        });
    });
}

#[test]
fn a_burst_goes_out_at_the_rate() {
    const COUNT: u64 = 5_000;
    const RATE: u32 = 2_000;
    within(LIMIT, || {
        alone("losses::a_burst_goes_out_at_the_rate", |cable| {
            let options = ZmqOptions {
                multicast_rate: RATE,
                ..ZmqOptions::default()
            };
            let publisher = publisher(HERE, options);
            let mut watches = [Watch::live(cable, &["--multicast-rate", &RATE.to_string()])];
            let start = Instant::now();
            (1..=COUNT).for_each(|number| send(&publisher, TOPIC, "row", number));
            finish(&publisher, COUNT, &mut watches);
            let took = start.elapsed();
            println!("{took:?}: {}", watches[0].report());
            // An update has more than 100 bytes, and what the rate allows in a second goes out at once.
            let least = COUNT as f64 * 800.0 / (f64::from(RATE) * 1000.0) - 1.0;
            assert!(took >= Duration::from_secs_f64(least), "{took:?}");
        });
    });
}

#[test]
fn a_cut_and_the_end_of_a_publisher_are_noticed() {
    within(LIMIT, || {
        alone("losses::a_cut_and_the_end_of_a_publisher_are_noticed", |cable| {
            let mut watch = Watch::start(cable, &[]);
            watch.await_stderr("no connection yet");
            let first = publisher(ADDRESS, ZmqOptions::default());
            watch.expect("connected");
            cable.lose(1.0);
            let cut = Instant::now();
            watch.expect("address-lost");
            println!("noticed after {:?}", cut.elapsed());
            cable.lose(0.0);
            watch.expect("reconnected");
            watch.await_stderr("sync: reconnected");
            // A goodbye is no loss: nothing is told when the address is found dead. A starved process may lose it before.
            let mut publisher_now = Some(first);
            let is_silent = (0..5).any(|_| {
                drop(publisher_now.take());
                watch.await_stderr("nothing comes from");
                publisher_now = Some(publisher(ADDRESS, ZmqOptions::default()));
                let first = watch.next_sync();
                let mut last = first.clone();
                while last != "reconnected" {
                    last = watch.next_sync();
                }
                watch.await_stderr("sync: reconnected");
                first == last
            });
            assert!(is_silent);
        });
    });
}

#[test]
fn writers_publish_through_a_service() {
    within(LIMIT, || {
        alone("losses::writers_publish_through_a_service", |cable| {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("publisher.sock");
            let socket = ["--publisher-multiproc-socket", socket.to_str().unwrap()];
            let (group, port) = GROUP.split_once(':').unwrap();
            let mut service = tablecast(["service", "--publisher-transport", "epgm", "--publisher-port", port]);
            service
                .args(["--publisher-bind-address", &format!("{HERE};{group}")])
                .args(socket);
            let mut service = Process::start(service);
            let ready = service.line();
            assert!(
                ready.starts_with(&format!("ready epgm://{HERE};{GROUP} ipc://")),
                "{ready}"
            );
            let mut watch = Watch::live(cable, &[]);
            for (table, key) in [("row", "1"), (END, "2")] {
                let mut publish = crate::process::publish(["--table", table, "--key", key, "--topic", TOPIC]);
                publish.args(["--value", &micros().to_string()]).args(socket);
                let end = run(publish);
                assert_eq!(end.code, Some(0), "{end:?}");
            }
            eventually(LONG, || watch.is_complete());
            assert_eq!(watch.missed(), 0);
        });
    });
}

#[test]
fn an_interface_that_is_missing_is_named() {
    within(LIMIT, || {
        alone("losses::an_interface_that_is_missing_is_named", |_| {
            for interface in ["there0", "10.9.9.2"] {
                let driver = driver(interface, ZmqOptions::default());
                let (mut inbound, _wake) = driver.inbound().unwrap();
                let errors = [
                    driver.outbound().err().unwrap(),
                    inbound.connect(&format!("epgm://{interface};{GROUP}")).unwrap_err(),
                ];
                for error in errors {
                    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
                    assert!(
                        error.to_string().contains(&format!("no interface {interface:?}")),
                        "{error}"
                    );
                }
            }
        });
    });
}
