//! From `send_event` in one process to the callback in another over tcp, next to the zmq crate alone moving the same
//! bytes in the same run: updates per second, and latency at 10,000 updates per second; with many topics, many
//! subscribers, and through the publisher service.
//!
//! `cargo bench --bench end_to_end [-- rounds]`, or `-- curve [rounds]` for the part with keys at both ends, which needs a
//! libzmq with CURVE. Every figure is the median over the rounds. The ratio is taken in each round, since the machine's
//! speed changes between them.
#![allow(missing_docs, unreachable_pub)]

mod fan;
mod receiving;
mod sending;
mod way;

use std::time::Duration;

use tablecast::drivers::zmq::KeyPair;

use receiving::receive;
use way::{PAIR, Way};

/// Updates per round: a second or two. In rounds of a quarter of that the bare library's rates differ by up to half,
/// depending on which process runs first.
const COUNT: usize = 2_000_000;
/// Updates that a writer sends when its own rate is measured: in a longer round the receiver takes the processor from
/// it.
const BURST: usize = 500_000;
/// Updates of a round with one on each topic.
const ON_TOPICS: usize = 100_000;
/// Updates per second of a latency round, and their number: few, so that most rounds miss the machine's stalls.
const RATE: usize = 10_000;
const PACED: usize = 10_000;
/// Subscribers of one sender.
const SUBSCRIBERS: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["send", way, id, address, count, rate] => {
            sending::send(Way(way), id, address, count.parse().unwrap(), rate.parse().unwrap());
        }
        ["listen", way, address] => fan::listen(Way(way), address),
        // For a profiler: one way of moving updates, repeatedly, at full speed, at the pace, or to many.
        ["only", way, rounds] => repeat(way, rounds, || throughput(way, 1, COUNT)),
        ["pace", way, rounds] => repeat(way, rounds, || latencies(way)),
        ["fan", way, rounds] => repeat(way, rounds, || fan::fan_out(Way(way))),
        [] => run(5),
        ["curve"] => curve(5),
        ["curve", rounds] => curve(rounds.parse().expect("a number of rounds")),
        [rounds] => run(rounds.parse().expect("a number of rounds")),
        _ => panic!("usage: end_to_end [curve] [rounds]"),
    }
}

fn repeat<T: std::fmt::Debug>(way: &str, rounds: &str, measure: impl Fn() -> T) {
    for _ in 0..rounds.parse().unwrap() {
        println!("{way} {:.2?}", measure());
    }
}

fn run(rounds: usize) {
    println!(
        "payload: JSON {} bytes, MessagePack {} bytes",
        Way("json").payload().len(),
        Way("msgpack").payload().len()
    );
    compare_throughput("", rounds);

    println!("\nwhat looking for losses costs, {COUNT} updates, updates/s");
    for codec in ["json", "msgpack"] {
        let unchecked = format!("unchecked-{codec}");
        let (without, with) = (|| throughput(&unchecked, 1, COUNT), || throughput(codec, 1, COUNT));
        compare(codec, ["without", "with"], 2 * rounds, without, with);
    }

    println!("\n{ON_TOPICS} topics, one update on each, updates/s");
    let (raw, ours) = ("topics-raw-msgpack", "topics-msgpack");
    let on_topics = |way: &'static str| move || throughput(way, 1, ON_TOPICS);
    compare("msgpack", THEIRS_AND_OURS, rounds, on_topics(raw), on_topics(ours));

    println!("\n{SUBSCRIBERS} subscribers in five processes, 2000 updates, updates/s at each");
    let fan = |way: &'static str| move || 2000.0 / fan::fan_out(Way(way)).as_secs_f64();
    compare(
        "msgpack",
        THEIRS_AND_OURS,
        rounds,
        fan("fan-raw-msgpack"),
        fan("fan-msgpack"),
    );

    println!("\nthrough the publisher service, {COUNT} updates, updates/s");
    for (writers, what) in [(1, "one writer"), (8, "eight writers")] {
        let through = |way: &'static str| move || throughput(way, writers, COUNT);
        let names = ["to the network itself", "through the service"];
        compare(what, names, rounds, through("msgpack"), through("service-msgpack"));
    }

    latency("", rounds);

    println!("\na writer's own rate, {BURST} updates, updates/s");
    let alone = |way: &'static str| move || receive(Way(way), 1, BURST, 0).sent_per_second;
    let names = ["to the network itself", "through the service"];
    compare("json", names, 2 * rounds, alone("json"), alone("service-json"));
    if has_curve() {
        curve(rounds);
    }
}

const THEIRS_AND_OURS: [&str; 2] = ["zmq crate alone", "tablecast"];

/// The same with keys at both ends.
fn curve(rounds: usize) {
    assert!(has_curve(), "this libzmq has no CURVE");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pair");
    KeyPair::generate().unwrap().save(&file).unwrap();
    PAIR.set(file).unwrap();
    compare_throughput("curve-", rounds);
    latency("curve-", rounds);
}

fn has_curve() -> bool {
    zmq::has("curve") == Some(true)
}

/// `kind` is `curve-` or nothing.
fn compare_throughput(kind: &str, rounds: usize) {
    println!(
        "\nthroughput, {COUNT} updates, two processes over tcp{}, updates/s",
        with(kind)
    );
    for codec in ["json", "msgpack"] {
        let raw = || throughput(&format!("{kind}raw-{codec}"), 1, COUNT);
        let ours = || throughput(&format!("{kind}{codec}"), 1, COUNT);
        compare(codec, THEIRS_AND_OURS, rounds, raw, ours);
    }
}

fn throughput(way: &str, writers: usize, count: usize) -> f64 {
    receive(Way(way), writers, count, 0).rate()
}

/// Measures two ways in turn.
fn compare(what: &str, names: [&str; 2], rounds: usize, one: impl Fn() -> f64, other: impl Fn() -> f64) {
    let rates: Vec<_> = (0..rounds).map(|_| (one(), other())).collect();
    let column = |pick: fn(&(f64, f64)) -> f64| median(&rates.iter().map(pick).collect::<Vec<_>>());
    println!(
        "  {what:13} {} {:>9.0}   {} {:>9.0}   ratio {:.2}",
        names[0],
        column(|rates| rates.0),
        names[1],
        column(|rates| rates.1),
        column(|rates| rates.1 / rates.0)
    );
}

fn latency(kind: &str, rounds: usize) {
    println!("\nlatency at {RATE} updates/s{}, microseconds", with(kind));
    for (codec, other, name) in [
        ("json", "raw-json", "zmq crate alone"),
        ("msgpack", "raw-msgpack", "zmq crate alone"),
        // A program that hands messages to a second thread over a channel pays for the second waking too.
        ("msgpack", "hop-msgpack", "zmq crate and a channel"),
    ] {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..4 * rounds {
            theirs.push(latencies(&format!("{kind}{other}")));
            ours.push(latencies(&format!("{kind}{codec}")));
        }
        let column = |rows: &[[f64; 2]], at: usize| rows.iter().map(|row| row[at]).collect::<Vec<_>>();
        let [their_p50, their_p99] = [0, 1].map(|at| column(&theirs, at));
        let [p50, p99] = [0, 1].map(|at| column(&ours, at));
        println!(
            "  {codec:8} {name} p50 {:>4.0} p99 {:>5.0}   tablecast p50 {:>4.0} p99 {:>5.0}   p99 ratio {:.2}",
            median(&their_p50),
            median(&their_p99),
            median(&p50),
            median(&p99),
            median(&p99) / median(&their_p99)
        );
        // Most of a tail is the machine's own stalls, so the best rounds are compared.
        let [theirs, ours] = [&their_p99, &p99].map(|p99| p99.iter().copied().fold(f64::INFINITY, f64::min));
        println!(
            "  {:8} p99 of the quietest round: {theirs:.0} and {ours:.0}, ratio {:.2}",
            "",
            ours / theirs
        );
    }
}

/// The median and the 99th percentile of a paced round.
fn latencies(way: &str) -> [f64; 2] {
    let mut sorted = receive(Way(way), 1, PACED, RATE).latencies;
    sorted.sort_unstable();
    [0.5, 0.99].map(|quantile| sorted[((sorted.len() - 1) as f64 * quantile) as usize] as f64)
}

fn with(kind: &str) -> &'static str {
    if kind.is_empty() { "" } else { " with CURVE" }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
