//! From `send_event` in one process to the callback in another over tcp, next to the zmq crate alone moving the same
//! bytes in the same run: updates per second, and latency at 10,000 updates per second.
//!
//! `cargo bench --bench end_to_end [-- rounds]`, or `-- curve [rounds]` for the part with keys at both ends, which needs a
//! libzmq with CURVE. Every figure is the median over the rounds. The ratio is taken in each round, since the machine's
//! speed changes between them.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tablecast::codec::{Codec, Encoder};
use tablecast::drivers::zmq::{KeyPair, ZmqDriver, ZmqMultiproc, ZmqOptions};
use tablecast::queue::{Overflow, QueueOptions};
use tablecast::{
    Action, DbUpdate, Dispatcher, DispatcherOptions, Name, Publisher, PublisherOptions, Service, ServiceOptions,
    Subscriber, SubscriberOptions, Topic,
};

/// Updates per round: a second or two. In rounds of a quarter of that the bare library's rates differ by up to half,
/// depending on which process runs first.
const COUNT: usize = 2_000_000;
/// Updates that a writer sends when its own rate is measured: in a longer round the receiver takes the processor from
/// it.
const BURST: usize = 500_000;
/// Updates per second of a latency round, and their number: few, so that most rounds miss the machine's stalls.
const RATE: usize = 10_000;
const PACED: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(60);
/// Begins the names of the ways of moving updates that use keys.
const CURVE: &str = "curve-";
/// The file with the pair of keys that both ends have, and the variable that names it to the sending process.
static PAIR: OnceLock<PathBuf> = OnceLock::new();
const PAIR_VARIABLE: &str = "TABLECAST_BENCH_PAIR";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["send", how, address, count, rate] => send(how, address, count.parse().unwrap(), rate.parse().unwrap()),
        // For a profiler: one way of moving updates, repeatedly, at full speed or at the pace.
        ["only", how, rounds] => {
            for _ in 0..rounds.parse().unwrap() {
                println!("{how} {:.0}", rate(receive(how, COUNT, 0)));
            }
        }
        ["pace", how, rounds] => {
            for _ in 0..rounds.parse().unwrap() {
                println!("{how} {:?}", latencies(how));
            }
        }
        [] => run(5),
        ["curve"] => curve(5),
        ["curve", rounds] => curve(rounds.parse().expect("a number of rounds")),
        [rounds] => run(rounds.parse().expect("a number of rounds")),
        _ => panic!("usage: end_to_end [curve] [rounds]"),
    }
}

fn run(rounds: usize) {
    println!(
        "payload: JSON {} bytes, MessagePack {} bytes",
        payload(Codec::Json).len(),
        payload(Codec::MessagePack).len()
    );
    throughput("", rounds);

    println!("\nwhat looking for losses costs, {COUNT} updates, updates/s");
    for codec in ["json", "msgpack"] {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..2 * rounds {
            without.push(rate(receive(&format!("unchecked-{codec}"), COUNT, 0)));
            with.push(rate(receive(codec, COUNT, 0)));
        }
        let ratios: Vec<f64> = with
            .iter()
            .zip(&without)
            .map(|(with, without)| with / without)
            .collect();
        println!(
            "  {codec:8} without {:>9.0}   with {:>9.0}   ratio {:.2}",
            median(&without),
            median(&with),
            median(&ratios)
        );
    }

    latency("", rounds);

    println!("\na writer's own rate, {BURST} updates, updates/s");
    let mut direct = Vec::new();
    let mut service = Vec::new();
    for _ in 0..2 * rounds {
        direct.push(receive("json", BURST, 0).sent_per_second);
        service.push(receive("service-json", BURST, 0).sent_per_second);
    }
    let ratios: Vec<f64> = service
        .iter()
        .zip(&direct)
        .map(|(service, direct)| service / direct)
        .collect();
    println!(
        "  to the network itself {:>9.0}   through the service {:>9.0}   ratio {:.2}",
        median(&direct),
        median(&service),
        median(&ratios)
    );
    if has_curve() {
        curve(rounds);
    }
}

/// The same with keys at both ends.
fn curve(rounds: usize) {
    assert!(has_curve(), "this libzmq has no CURVE");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pair");
    KeyPair::generate().unwrap().save(&file).unwrap();
    PAIR.set(file).unwrap();
    throughput(CURVE, rounds);
    latency(CURVE, rounds);
}

fn has_curve() -> bool {
    zmq::has("curve") == Some(true)
}

/// Updates per second; `kind` is `CURVE` or nothing.
fn throughput(kind: &str, rounds: usize) {
    println!(
        "\nthroughput, {COUNT} updates, two processes over tcp{}, updates/s",
        with(kind)
    );
    let mut rates = [("json", vec![], vec![]), ("msgpack", vec![], vec![])];
    for _ in 0..rounds {
        for (codec, raw, ours) in &mut rates {
            raw.push(rate(receive(&format!("{kind}raw-{codec}"), COUNT, 0)));
            ours.push(rate(receive(&format!("{kind}{codec}"), COUNT, 0)));
        }
    }
    for (codec, raw, ours) in &rates {
        let ratios: Vec<f64> = ours.iter().zip(raw).map(|(ours, raw)| ours / raw).collect();
        println!(
            "  {codec:8} zmq crate alone {:>9.0}   tablecast {:>9.0}   ratio {:.2}",
            median(raw),
            median(ours),
            median(&ratios)
        );
    }
}

fn latency(kind: &str, rounds: usize) {
    println!("\nlatency at {RATE} updates/s{}, microseconds", with(kind));
    let mut quantiles = [("json", vec![], vec![]), ("msgpack", vec![], vec![])];
    for _ in 0..4 * rounds {
        for (codec, raw, ours) in &mut quantiles {
            raw.push(latencies(&format!("{kind}raw-{codec}")));
            ours.push(latencies(&format!("{kind}{codec}")));
        }
    }
    for (codec, raw, ours) in &quantiles {
        let column = |rows: &[[f64; 2]], at: usize| rows.iter().map(|row| row[at]).collect::<Vec<_>>();
        let [raw_p50, raw_p99, p50, p99] = [column(raw, 0), column(raw, 1), column(ours, 0), column(ours, 1)];
        println!(
            "  {codec:8} zmq crate alone p50 {:>4.0} p99 {:>5.0}   tablecast p50 {:>4.0} p99 {:>5.0}   p99 ratio {:.2}",
            median(&raw_p50),
            median(&raw_p99),
            median(&p50),
            median(&p99),
            median(&p99) / median(&raw_p99)
        );
        // Most of a tail is the machine's own stalls, so the best rounds are compared.
        let [raw, ours] = [&raw_p99, &p99].map(|p99| p99.iter().copied().fold(f64::INFINITY, f64::min));
        println!(
            "  {:8} p99 of the quietest round: {raw:.0} and {ours:.0}, ratio {:.2}",
            "",
            ours / raw
        );
    }
}

fn with(kind: &str) -> &'static str {
    if kind == CURVE { " with CURVE" } else { "" }
}

struct Measured {
    received: usize,
    took: Duration,
    latencies: Vec<i64>,
    sent_per_second: f64,
}

fn rate(measured: Measured) -> f64 {
    measured.received as f64 / measured.took.as_secs_f64()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The median and the 99th percentile of a paced round.
fn latencies(how: &str) -> [f64; 2] {
    let mut sorted = receive(how, PACED, RATE).latencies;
    sorted.sort_unstable();
    [0.5, 0.99].map(|quantile| sorted[((sorted.len() - 1) as f64 * quantile) as usize] as f64)
}

fn update() -> DbUpdate {
    let value = r#"{"id":"9b2e1f34","name":"vm-17","chassis":"host-3","lswitch":"net-1","version":7}"#;
    DbUpdate::new("lport", "port-00000000", Action::Set).value(value)
}

fn payload(codec: Codec) -> Vec<u8> {
    let encoder = Encoder::new(codec, "writer-1".into(), 1);
    let mut buf = Vec::new();
    let update = update();
    encoder.begin(&update, &Topic::ALL, &mut buf);
    encoder.finish(0, update.timestamp, 123_456, Duration::ZERO, &mut buf);
    buf
}

fn codec_of(how: &str) -> Codec {
    if how.ends_with("msgpack") {
        Codec::MessagePack
    } else {
        Codec::Json
    }
}

/// The usual hello interval, or one longer than a round.
fn hello_interval(how: &str) -> Duration {
    Duration::from_secs(if how.starts_with("unchecked-") { 600 } else { 1 })
}

fn micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

/// The way of moving updates without the keys, and whether it uses keys.
fn split(how: &str) -> (&str, bool) {
    how.strip_prefix(CURVE).map_or((how, false), |plain| (plain, true))
}

fn pair() -> &'static Path {
    PAIR.get_or_init(|| std::env::var_os(PAIR_VARIABLE).expect("a file with keys").into())
}

/// A field of the pair's file.
fn key(field: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(pair()).unwrap();
    let line = text.lines().find(|line| line.trim().starts_with(field)).unwrap();
    line.split('"').nth(1).unwrap().into()
}

/// Unlimited on both sides, so that neither side drops: the work per update is compared.
fn options(is_secured: bool) -> ZmqOptions {
    ZmqOptions {
        curve_secret_key_file: if is_secured { pair().into() } else { PathBuf::new() },
        send_hwm: 0,
        receive_hwm: 0,
        linger: Duration::from_secs(30),
        ..ZmqOptions::default()
    }
}

// The sending process.

fn send(how: &str, address: &str, count: usize, rate: usize) {
    let (plain, is_secured) = split(how);
    if plain.starts_with("raw-") {
        send_raw(plain, is_secured, address, count, rate);
    } else {
        send_ours(plain, is_secured, address, count, rate);
    }
}

/// Waits for the parent, then calls `send` for each update, paced if `rate` is not 0, and reports the speed.
fn paced(count: usize, rate: usize, mut send: impl FnMut(usize)) {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let start = Instant::now();
    for i in 0..count {
        if rate != 0 {
            let due = start + Duration::from_secs_f64(i as f64 / rate as f64);
            // Sleeps rather than spins: a sender that keeps a processor busy would disturb the other processes.
            while let Some(left) = due
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
            {
                std::thread::park_timeout(left);
            }
        }
        send(i);
    }
    println!("{}", count as f64 / start.elapsed().as_secs_f64());
    // Keeps the connection until the parent has everything.
    std::io::stdin().read_line(&mut line).unwrap();
}

fn send_raw(how: &str, is_secured: bool, address: &str, count: usize, rate: usize) {
    let context = zmq::Context::new();
    let socket = context.socket(zmq::PUB).unwrap();
    socket.set_sndhwm(0).unwrap();
    socket.set_linger(30_000).unwrap();
    if is_secured {
        socket.set_curve_server(true).unwrap();
        socket.set_curve_secretkey(&key("secret-key")).unwrap();
    }
    socket.bind(address).unwrap();
    println!("{}", socket.get_last_endpoint().unwrap().unwrap());
    let mut payload = payload(codec_of(how));
    let stamp = payload.len() - 8;
    paced(count, rate, |_| {
        if rate != 0 {
            payload[stamp..].copy_from_slice(&micros().to_ne_bytes());
        }
        socket.send("D", zmq::SNDMORE).unwrap();
        socket.send(&payload[..], 0).unwrap();
    });
}

fn send_ours(how: &str, is_secured: bool, address: &str, count: usize, rate: usize) {
    let options = PublisherOptions {
        id: Some("writer-1".into()),
        codec: codec_of(how),
        hello_interval: hello_interval(how),
        ..PublisherOptions::default()
    };
    let publisher = if how.starts_with("service-") {
        Publisher::new(&ZmqMultiproc::new(address, self::options(is_secured)).unwrap(), options).unwrap()
    } else {
        Publisher::new(&ZmqDriver::new(address, self::options(is_secured)).unwrap(), options).unwrap()
    };
    println!("{}", publisher.address().unwrap_or_default());
    let mut update = update();
    let keys: Vec<Name> = (0..1000).map(|i| format!("port-{i:08}").into()).collect();
    paced(count, rate, |i| {
        update.key.clone_from(&keys[i % keys.len()]);
        // As in practice, every update is later than the one before.
        update.timestamp = if rate == 0 { update.timestamp + 1 } else { micros() };
        publisher.send_event(&update).unwrap();
    });
}

// The receiving process.

struct Sender {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Sender {
    fn start(how: &str, address: &str, count: usize, rate: usize) -> (Sender, String) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["send", how, address, &count.to_string(), &rate.to_string()])
            .envs(PAIR.get().map(|file| (PAIR_VARIABLE, file)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut sender = Sender { child, lines };
        let address = sender.line();
        (sender, address)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    fn finish(mut self) -> f64 {
        let rate = self.line().parse().unwrap();
        self.go();
        self.child.wait().unwrap();
        rate
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

fn receive(how: &str, count: usize, rate: usize) -> Measured {
    if split(how).0.starts_with("raw-") {
        receive_raw(how, count, rate)
    } else {
        receive_ours(how, count, rate)
    }
}

fn receive_raw(how: &str, count: usize, rate: usize) -> Measured {
    let (mut sender, address) = Sender::start(how, "tcp://127.0.0.1:*", count, rate);
    let context = zmq::Context::new();
    let socket = context.socket(zmq::SUB).unwrap();
    socket.set_rcvhwm(0).unwrap();
    socket.set_rcvtimeo(60_000).unwrap();
    if split(how).1 {
        let (public, secret) = (key("public-key"), key("secret-key"));
        socket.set_curve_serverkey(&public).unwrap();
        socket.set_curve_publickey(&public).unwrap();
        socket.set_curve_secretkey(&secret).unwrap();
    }
    socket.set_subscribe(b"D").unwrap();
    let monitor = context.socket(zmq::PAIR).unwrap();
    socket
        .monitor("inproc://connected", zmq::SocketEvent::HANDSHAKE_SUCCEEDED as i32)
        .unwrap();
    monitor.connect("inproc://connected").unwrap();
    socket.connect(&address).unwrap();
    monitor.recv_multipart(0).unwrap();
    // The publisher's side may still be reading the subscription, which this side cannot see.
    std::thread::park_timeout(Duration::from_millis(100));
    sender.go();
    let (mut topic, mut payload) = (zmq::Message::new(), zmq::Message::new());
    let mut latencies = Vec::with_capacity(count);
    let mut start = None;
    for _ in 0..count {
        socket.recv(&mut topic, 0).unwrap();
        socket.recv(&mut payload, 0).unwrap();
        start.get_or_insert_with(Instant::now);
        if rate != 0 {
            latencies.push(micros() - i64::from_ne_bytes(*payload.last_chunk().unwrap()));
        }
    }
    let took = start.unwrap().elapsed();
    let sent_per_second = sender.finish();
    Measured {
        received: count,
        took,
        latencies,
        sent_per_second,
    }
}

fn receive_ours(how: &str, count: usize, rate: usize) -> Measured {
    let (plain, is_secured) = split(how);
    let dispatcher = Dispatcher::new(DispatcherOptions {
        queue: QueueOptions {
            overflow: Overflow::Block,
            ..QueueOptions::default()
        },
        ..DispatcherOptions::default()
    })
    .unwrap();
    let (done, finished) = crossbeam_channel::bounded(1);
    let state = std::sync::Mutex::new((None, 0, Vec::with_capacity(count)));
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
    let network = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", options(is_secured)).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("ipc://{}/socket", folder.path().display());
    let multiproc = ZmqMultiproc::new(&socket, options(is_secured)).unwrap();
    let service = plain
        .starts_with("service-")
        .then(|| Service::start(&multiproc, &socket, &*network, ServiceOptions::default()).unwrap());
    let to = if service.is_some() {
        &*socket
    } else {
        "tcp://127.0.0.1:0"
    };
    let (mut sender, address) = Sender::start(how, to, count, rate);
    let address = service.as_ref().map_or(address, |service| service.address().unwrap());

    let options = SubscriberOptions {
        continuity: !plain.starts_with("unchecked-"),
        ..SubscriberOptions::default()
    };
    let subscriber = Subscriber::new(network, dispatcher.queue(), options);
    subscriber.register_topic(&Topic::ALL).unwrap();
    subscriber.register_listen_address(&address).unwrap();
    subscriber.daemonize().unwrap();
    subscriber.wait_live(PATIENCE).unwrap();
    sender.go();
    let (took, latencies) = finished.recv_timeout(PATIENCE).expect("all updates");
    let sent_per_second = sender.finish();
    drop(guard);
    Measured {
        received: count,
        took,
        latencies,
        sent_per_second,
    }
}
