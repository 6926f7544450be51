//! The cost of metrics: updates per second from one node to the callbacks of another over tcp, with metrics and without,
//! in turns.
//!
//! `cargo bench --bench metrics [-- rounds]`. The ratio is taken in each round, since the machine's speed changes.
#![allow(missing_docs)]

use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use tablecast::config::Source;
use tablecast::queue::Overflow;
use tablecast::{Config, DbUpdate, Metrics, Node, Topic};

const COUNT: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let rounds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(15);
    let mut ratios = Vec::new();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    rate(false);
    for round in 0..rounds {
        // Each is first in half of the rounds.
        let first = rate(round % 2 == 0);
        let second = rate(round % 2 != 0);
        let (on, off) = if round % 2 == 0 {
            (first, second)
        } else {
            (second, first)
        };
        with.push(on);
        without.push(off);
        ratios.push(on / off);
    }
    println!(
        "updates/s, median of {rounds} rounds: without metrics {:.0}, with {:.0}, ratio {:.3}",
        median(without),
        median(with),
        median(ratios)
    );
}

/// The rate of one run.
fn rate(has_metrics: bool) -> f64 {
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
    let _metrics = has_metrics.then(|| Metrics::new(&receiver));
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
    let start = Instant::now();
    for _ in 0..COUNT {
        publisher.send_event(&update).unwrap();
    }
    end.recv_timeout(PATIENCE).expect("every update arrives");
    COUNT as f64 / start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
