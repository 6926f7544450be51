//! The cost of hellos: a publisher uses each of N topics once and then is quiet, as a plain SUB socket sees it.
//!
//! `cargo bench --bench hello`
#![allow(missing_docs)]

use std::fs;
use std::time::{Duration, Instant};

use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::{Action, DbUpdate, Publisher, PublisherOptions, Topic};

const PERIOD: Duration = Duration::from_millis(500);
/// Number of measured periods: some more than those in which topics are named.
const PERIODS: usize = 8;

fn main() {
    println!("hello period {PERIOD:?}; each topic used once, then nothing is sent");
    println!("  topics   memory/topic   hello messages and KiB in each period            quiet: CPU/period");
    for topics in [0, 1_000, 10_000, 100_000] {
        run(topics);
    }
}

fn run(topics: usize) {
    let driver = ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap();
    let options = PublisherOptions {
        hello_interval: PERIOD,
        ..PublisherOptions::default()
    };
    let publisher = Publisher::new(&driver, options).unwrap();
    let context = zmq::Context::new();
    let socket = context.socket(zmq::SUB).unwrap();
    socket.set_subscribe("\u{10FFFF}tablecast/hello".as_bytes()).unwrap();
    // As a subscriber asks, behind its topics; otherwise it would not count as one.
    let probe = "\u{10FFFF}tablecast/probe/0/0".as_bytes();
    socket.set_subscribe(probe).unwrap();
    socket.connect(&publisher.address().unwrap()).unwrap();
    while socket.recv_multipart(0).unwrap()[0] != probe {}

    let before = resident();
    for number in 0..topics {
        let topic = Topic::new(format!("tenant-{number:06}")).unwrap();
        let update = DbUpdate::new("lport", "port-1", Action::Delete).topic(topic);
        publisher.send_event(&update).unwrap();
    }
    let memory = resident().saturating_sub(before).checked_div(topics).unwrap_or(0);

    let start = Instant::now();
    let mut periods = [(0, 0); PERIODS];
    let mut busy = processor_time();
    let mut quiet_since = start;
    while let Some(left) = (PERIOD * PERIODS as u32).checked_sub(start.elapsed()) {
        socket.set_rcvtimeo(left.as_millis() as i32 + 1).unwrap();
        let Ok(frames) = socket.recv_multipart(0) else { break };
        let period = start.elapsed().as_millis() / PERIOD.as_millis();
        if let Some((messages, bytes)) = periods.get_mut(period as usize) {
            *messages += 1;
            *bytes += frames.iter().map(Vec::len).sum::<usize>();
        }
        if frames[1].len() > 200 {
            (busy, quiet_since) = (processor_time(), Instant::now());
        }
    }
    let quiet = quiet_since.elapsed().as_secs_f64() / PERIOD.as_secs_f64();
    let cost = (processor_time() - busy).as_secs_f64() * 1e6 / quiet;
    let periods = periods
        .map(|(messages, bytes)| format!("{messages}:{}", bytes >> 10))
        .join(" ");
    println!("  {topics:>6}   {memory:>6} bytes   {periods:<50} {cost:.0} µs over {quiet:.1} periods");
}

/// Resident memory in bytes.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Processor time used by all threads of this process.
fn processor_time() -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let nanos = threads.map(|thread| {
        let schedstat = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        schedstat
            .split(' ')
            .next()
            .and_then(|nanos| nanos.parse().ok())
            .unwrap_or(0)
    });
    Duration::from_nanos(nanos.sum())
}
