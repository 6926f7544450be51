//! The cost of metrics: updates from one node to the callbacks of another over tcp, with metrics that are scraped ten
//! times a second and without, in turns.
//!
//! `cargo bench --bench metrics [-- rounds]`. The ratios are taken in each round, since the machine's speed changes. That of
//! the processor time of both nodes is the steadier one where other processes run. To compare with a build that has no
//! metrics: `cargo bench --bench metrics --no-default-features --features zmq`.
#![allow(missing_docs)]
#![cfg_attr(not(feature = "metrics"), allow(dead_code))]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use rustix::time::{ClockId, clock_gettime};
#[cfg(feature = "metrics")]
use tablecast::Metrics;
use tablecast::config::Source;
use tablecast::queue::Overflow;
use tablecast::{Config, DbUpdate, Node, Topic};

const COUNT: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let rounds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(15);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    run(false);
    for round in 0..rounds {
        // Each is first in half of the rounds.
        if cfg!(not(feature = "metrics")) {
            without.push(run(false));
        } else if round % 2 == 0 {
            with.push(run(true));
            without.push(run(false));
        } else {
            without.push(run(false));
            with.push(run(true));
        }
    }
    for (what, unit, column) in [("rate", "updates/s", 0), ("processor time", "ns an update", 1)] {
        let values = |runs: &[[f64; 2]]| runs.iter().map(|run| run[column]).collect::<Vec<_>>();
        let (off, on) = (values(&without), values(&with));
        if on.is_empty() {
            println!("{what}, median of {rounds} rounds, {unit}: {:.0}", median(off));
            continue;
        }
        let ratios = on.iter().zip(&off).map(|(on, off)| on / off).collect();
        println!(
            "{what}, median of {rounds} rounds, {unit}: without metrics {:.0}, with {:.0}, ratio {:.3}",
            median(off),
            median(on),
            median(ratios)
        );
    }
}

/// Updates per second, and nanoseconds of processor time an update.
fn run(has_metrics: bool) -> [f64; 2] {
    let mut config = Config::default();
    config.pub_sub_use_multiproc = false;
    config.topics = vec![Topic::ALL];
    config.queue_overflow = Overflow::Block;
    for (option, value) in [
        ("publisher_port", "0"),
        ("nb_db_class", "memory"),
        ("send_hwm", "10000000"),
    ] {
        config.set(option, value, Source::Program).unwrap();
    }
    let sender = Node::open(&config).unwrap();
    let publisher = sender.publisher().unwrap();
    config.publishers = vec![publisher.address().unwrap()];
    config.set("receive_hwm", "10000000", Source::Program).unwrap();
    let receiver = Node::open(&config).unwrap();
    let scraped = has_metrics.then(|| scraped(&receiver));
    let (done, end) = bounded(1);
    let seen = std::sync::atomic::AtomicU64::new(0);
    let count = move |_: &DbUpdate| {
        if seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 == COUNT {
            let _ = done.send(());
        }
    };
    receiver.dispatcher().unwrap().on_update(count).detach();
    receiver.subscriber().unwrap().wait_live(PATIENCE).unwrap();
    let value = r#"{"id":"9b2e1f34","name":"vm-17","chassis":"host-3","lswitch":"net-1","version":7}"#;
    let update = DbUpdate::new("lport", "port-1", "set".into()).value(value);
    let (start, used) = (Instant::now(), processor_time());
    for _ in 0..COUNT {
        publisher.send_event(&update).unwrap();
    }
    end.recv_timeout(PATIENCE).expect("every update arrives");
    let rate = COUNT as f64 / start.elapsed().as_secs_f64();
    let used = (processor_time() - used).as_nanos() as f64 / COUNT as f64;
    drop(scraped);
    [rate, used]
}

/// Metrics of a node that are scraped until the result is dropped.
#[cfg(feature = "metrics")]
fn scraped(node: &Node) -> impl Sized {
    let server = Metrics::new(node).serve("0").unwrap();
    (Scraper::start(server.address()), server)
}

#[cfg(not(feature = "metrics"))]
fn scraped(_: &Node) {}

/// Scrapes until it is dropped.
struct Scraper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scraper {
    fn start(address: SocketAddr) -> Scraper {
        let (stop, stopped) = bounded(0);
        let body = move || {
            while stopped.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
                assert!(stream.read_to_end(&mut Vec::new()).unwrap() > 1_000);
            }
        };
        let thread = thread::Builder::new().spawn(body).unwrap();
        Scraper {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.stop = None;
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The processor time of this process.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
