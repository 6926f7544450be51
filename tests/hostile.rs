//! Hostile peers of every kind beside a fleet that works: its copies stay right, nobody else gets a sync event, and
//! memory and processor time of the attacked processes stay within bounds. `TABLECAST_TEST_FAULTS=long` makes it an hour
//! at 10,000 messages a second.
#![cfg(all(feature = "bin", feature = "sqlite", target_os = "linux"))]

mod common;
#[path = "common/host.rs"]
mod host;
#[path = "common/junk.rs"]
mod junk;
#[path = "common/peer.rs"]
mod peer;
#[path = "common/process.rs"]
mod process;
#[path = "common/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{eventually, pass, within};
use host::{Host, json, socket};
use process::{LIMIT, Process, tablecast};
use random::Random;
use serde_json::Value;
use tablecast::codec::{Codec, Decoder, Encoder, Message};
use tablecast::{Action, Config, DbUpdate, Node, Origin, Table, Topic};

const T: Table<u64> = Table::new("t");
const KEYS: u64 = 100;
const REPLICAS: usize = 10;

/// The most memory, in MiB, that an attack costs a replica, and the service. A process that is too slow for its peers
/// holds `receive_hwm` messages of each: here 1,000 of a liar's, and 100,000 of local writers', of up to 4 KiB.
const REPLICA: u64 = 128;
const SERVICE: u64 = 600;

/// Messages a second of each attacker, and how long.
fn strength() -> (u64, Duration) {
    match std::env::var("TABLECAST_TEST_FAULTS").is_ok_and(|form| form == "long") {
        true => (10_000, Duration::from_secs(3600)),
        // Longer than three periods of the watch below.
        false => (2_000, Duration::from_secs(11)),
    }
}

/// Ends the attacks when it is dropped, also by a failure.
struct Attack<'a>(&'a AtomicBool);

impl Drop for Attack<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Calls `strike` at this rate until the end.
fn repeat(is_over: &AtomicBool, rate: u64, mut strike: impl FnMut()) {
    let began = Instant::now();
    let mut done = 0_u128;
    while !is_over.load(Ordering::Relaxed) {
        let due = began.elapsed().as_micros() * u128::from(rate) / 1_000_000;
        // What is late is caught up with, but for no longer than a second.
        done = done.max(due.saturating_sub(rate.into()));
        while done < due {
            strike();
            done += 1;
        }
        pass(Duration::from_millis(1));
    }
}

/// A replica with its copy, as it prints it.
struct Copy {
    process: Process,
    rows: BTreeMap<String, String>,
}

impl Copy {
    fn start(host: &Host, publishers: &[&str]) -> Copy {
        let mut command = tablecast(["replica", "--table", "t", "--receive-hwm", "1000", "--sqlite-path"]);
        command.arg(host.folder.path().join("rows.db"));
        for publisher in publishers {
            command.args(["--publisher", publisher]);
        }
        let mut process = Process::start(command);
        while json(&process.line())["event"] != "synced" {}
        Copy {
            process,
            rows: BTreeMap::new(),
        }
    }

    fn read(&mut self) -> &BTreeMap<String, String> {
        while let Some(line) = self.process.line_by(Instant::now()) {
            let event = json(&line);
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            match &*text("event") {
                "added" | "changed" => _ = self.rows.insert(text("key"), text("value")),
                "removed" => _ = self.rows.remove(&text("key")),
                _ => {}
            }
        }
        &self.rows
    }
}

/// The sync events among the lines of a watch.
fn read_syncs(watch: &mut Process) -> impl Iterator<Item = Value> {
    let lines = std::iter::from_fn(|| watch.line_by(Instant::now()));
    lines.map(|line| json(&line)).filter(|event| event["event"] == "sync")
}

/// What a process has used.
struct Cost {
    what: &'static str,
    id: u32,
    began: Instant,
    memory: u64,
    most: u64,
    processor: u64,
}

impl Cost {
    fn of(what: &'static str, process: &Process) -> Cost {
        let id = process.id();
        Cost {
            what,
            id,
            began: Instant::now(),
            memory: memory(id),
            most: 0,
            processor: ticks(id),
        }
    }

    fn look(&mut self) {
        self.most = self.most.max(memory(self.id));
    }

    /// Prints what it was, and returns how many MiB more it has used at most.
    fn more(&self) -> u64 {
        let more = self.most.saturating_sub(self.memory) >> 10;
        let seconds = self.began.elapsed().as_secs_f64();
        // A tick is a hundredth of a second, which makes it percent.
        let processor = (ticks(self.id) - self.processor) as f64 / seconds;
        println!(
            "{}: {} MiB at first, {more} MiB more at most, {processor:.0} % of a processor",
            self.what,
            self.memory >> 10
        );
        more
    }
}

/// The memory of a process, in KiB.
fn memory(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The processor time of a process.
fn ticks(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

const HELLO: &str = "\u{10FFFF}tablecast/hello";

fn hello(publisher: &str, epoch: u64, action: &str, text: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    Encoder::new(Codec::MessagePack, publisher.into(), epoch).control(action, Some(text), &Topic::ALL, &mut payload);
    payload
}

fn update(publisher: &str, epoch: u64, seq: u64) -> Vec<u8> {
    let encoder = Encoder::new(Codec::MessagePack, publisher.into(), epoch);
    let update = DbUpdate::new("made-up", "k", Action::Set).value("{}");
    let mut payload = Vec::new();
    encoder.begin(&update, &Topic::ALL, &mut payload);
    encoder.finish(
        0,
        update.timestamp,
        seq.max(1),
        Duration::from_millis(seq % 5000),
        &mut payload,
    );
    payload
}

/// A publisher that is listened to, and lies.
struct Liar {
    socket: zmq::Socket,
    random: Random,
    writer: Origin,
    /// A million tiny updates, and a hello of a million topics.
    huge: [(&'static str, Vec<u8>); 2],
    /// The number of questions that it has answered.
    answers: u64,
}

impl Liar {
    /// Returns true if it has told a lie.
    fn strike(&mut self) -> bool {
        self.answer();
        let (topic, payload) = self.lie();
        let lie = [topic.as_bytes(), &payload[..]];
        self.socket.send_multipart(lie, zmq::DONTWAIT).is_ok()
    }

    /// Answers questions, so that its address counts as live.
    fn answer(&mut self) {
        while let Ok(subscription) = self.socket.recv_bytes(zmq::DONTWAIT) {
            if let Some(topic) = subscription
                .strip_prefix(b"\x01")
                .filter(|topic| topic.starts_with("\u{10FFFF}tablecast/probe/".as_bytes()))
            {
                let answer = hello("liar", 1, "hello", r#"{"every":1000,"at":1}"#);
                let _ = self.socket.send_multipart([topic, &answer[..]], zmq::DONTWAIT);
                self.answers += 1;
            }
        }
    }

    fn lie(&mut self) -> (String, Vec<u8>) {
        let random = &mut self.random;
        if random.below(4_000) == 0 {
            let (topic, payload) = &self.huge[random.below(2)];
            return ((*topic).to_owned(), payload.clone());
        }
        let made_up = format!("{:x}", random.next());
        let number = random.next() >> random.below(64);
        let (all, hellos) = ("D".to_owned(), HELLO.to_owned());
        let forged = format!(
            r#"{{"every":1000,"topics":[["D",{},0]],"round":{number},"at":5}}"#,
            self.writer.seq + 1_000_000
        );
        match random.below(14) {
            11 => (all, update(&self.writer.publisher, self.writer.epoch, u64::MAX)),
            12 => (
                all,
                update(&self.writer.publisher, self.writer.epoch, self.writer.seq + 1),
            ),
            13 => (all, update(&self.writer.publisher, number, number)),
            0 => (all, update(&made_up, number, random.next())),
            1 => (format!("D{made_up}"), update("liar", 1, number)),
            2 => (all, update(&made_up.repeat(15), 1, 1)),
            3 => (all, update("liar", number % 100, number)),
            4 => {
                let topics: Vec<_> = (0..256)
                    .map(|topic| format!(r#"["{made_up}{topic}",{number},0]"#))
                    .collect();
                let text = format!(r#"{{"every":1000,"topics":[{}]}}"#, topics.join(","));
                (hellos, hello(&made_up, number, "hello", &text))
            }
            5 => (
                hellos,
                hello(&self.writer.publisher, self.writer.epoch, "hello", &forged),
            ),
            6 => (
                hellos,
                hello(&self.writer.publisher, self.writer.epoch, "goodbye", &forged),
            ),
            7 => {
                let text = format!(
                    r#"{{"every":{},"round":{number},"at":{number}}}"#,
                    number % 86_400_000 + 1
                );
                (hellos, hello(&made_up, 1, "hello", &text))
            }
            8 => (all, [&[0xdb, 0xff, 0xff, 0xff, 0xff][..], &[b'x'; 100]].concat()),
            9 => (all, [&[0xdd, 0x7f, 0xff, 0xff, 0xff][..], &[0xc0; 10_000]].concat()),
            _ => {
                let mut junk = junk::malformed(random, 4096);
                (all, junk.pop().unwrap_or_default())
            }
        }
    }
}

/// Connections to a port that say nothing, or a byte a second, that subscribe to topics of 16 KB, or that give up
/// others' topics.
fn strangers(address: SocketAddr, is_over: &AtomicBool, opened: &AtomicU64) {
    let mut greeting = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL".to_vec();
    greeting.resize(64, 0);
    let mut slow: Vec<(TcpStream, usize)> = Vec::new();
    let mut random = Random::new("strangers");
    let mut ticks = 0_u64;
    repeat(is_over, 100, || {
        ticks += 1;
        let Ok(mut stranger) = TcpStream::connect_timeout(&address, LIMIT) else {
            return;
        };
        opened.fetch_add(1, Ordering::Relaxed);
        let _ = stranger.set_read_timeout(Some(Duration::from_secs(5)));
        match ticks % 50 {
            0 => slow.push((stranger, 0)),
            1 => subscribe(stranger, &greeting, &mut random),
            2 => take_back(stranger, &greeting),
            _ => _ = stranger.write_all(greeting.get(..random.below(64)).unwrap_or_default()),
        }
        if ticks.is_multiple_of(100) {
            slow.retain_mut(|(stranger, sent)| {
                *sent += 1;
                greeting
                    .get(*sent - 1..*sent)
                    .is_some_and(|byte| stranger.write_all(byte).is_ok())
            });
        }
    });
}

fn greet(stranger: &mut TcpStream, greeting: &[u8]) -> bool {
    let mut bytes = greeting.to_vec();
    bytes.extend(b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB");
    stranger.write_all(&bytes).is_ok() && stranger.read_exact(&mut [0; 65]).is_ok()
}

/// Subscribes to everybody's topics and gives them up, once more than it has them.
fn take_back(mut stranger: TcpStream, greeting: &[u8]) {
    let mut frames = Vec::new();
    for topic in ["D", HELLO] {
        for kind in [0, 1, 1, 0, 0, 0] {
            frames.extend([0, topic.len() as u8 + 1, kind]);
            frames.extend(topic.bytes());
        }
    }
    if greet(&mut stranger, greeting) {
        let _ = stranger.write_all(&frames);
    }
}

fn subscribe(mut stranger: TcpStream, greeting: &[u8], random: &mut Random) {
    if !greet(&mut stranger, greeting) {
        return;
    }
    for _ in 0..10 {
        let mut frame = vec![2];
        frame.extend(16_000_u64.to_be_bytes());
        frame.push(1);
        frame.extend((1..16_000).map(|_| random.next() as u8));
        if stranger.write_all(&frame).is_err() {
            return;
        }
    }
}

#[test]
fn hostile_peers_do_no_harm() {
    let (rate, time) = strength();
    within(time + 4 * LIMIT, move || {
        let host = Host::start();
        let mut config = Config::default();
        config.publisher_id = "writer".into();
        config.sqlite_path = host.folder.path().join("rows.db");
        config.publisher_multiproc_socket = socket(host.folder.path());
        (config.send_timeout_ms, config.store_timeout_ms) = (LIMIT, LIMIT);
        let node = Node::open(&config).unwrap();
        let database = node.database().unwrap();
        let rows = database.rows(T);
        rows.put("0", &0).unwrap();

        let context = zmq::Context::new();
        let (liar, lies) = peer::bound_with(&context, zmq::XPUB, 1000);
        liar.set_xpub_verbose(true).unwrap();
        // More than a busy machine takes, and little enough to see a service that the attack keeps from speaking.
        let mut watch = host.live_watch(&["--hello-interval-ms", "3000"]);
        let mut copies: Vec<_> = (0..REPLICAS)
            .map(|number| match number % 2 {
                0 => Copy::start(&host, &[&host.network]),
                _ => Copy::start(&host, &[&host.network, &lies]),
            })
            .collect();
        let mut number = 0;
        let writer = origin(&context, &host.network, || {
            number += 1;
            rows.put("0", &number).unwrap();
        });
        // Who first hears the writer in the middle of its numbers may be asked to read the store, a second later at most.
        pass(Duration::from_secs(3));
        while watch.line_by(Instant::now()).is_some() {}
        let mut costs = [
            Cost::of("the service", &host.service),
            Cost::of("a replica that is lied to", &copies[1].process),
            Cost::of("a replica beside it", &copies[0].process),
        ];

        let mut syncs = Vec::new();
        let (is_over, told, opened) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let (is_over, told, opened) = (&is_over, &told, &opened);
        let port: SocketAddr = host.network.strip_prefix("tcp://").unwrap().parse().unwrap();
        let path = socket(host.folder.path());
        std::thread::scope(|scope| {
            let attack = Attack(is_over);
            let mut liar = Liar {
                socket: liar,
                random: Random::new("liar"),
                writer,
                huge: [
                    ("D", [&[0xdd, 0, 0x0f, 0x42, 0x40][..], &[0x80; 1_000_000]].concat()),
                    (
                        HELLO,
                        hello(
                            "liar",
                            1,
                            "hello",
                            &format!(
                                r#"{{"every":1000,"topics":[{}["",1,1]]}}"#,
                                r#"["",1,1],"#.repeat(999_999)
                            ),
                        ),
                    ),
                ],
                answers: 0,
            };
            scope.spawn(move || {
                repeat(is_over, rate, || {
                    told.fetch_add(liar.strike().into(), Ordering::Relaxed);
                });
                assert!(liar.answers > 0, "it was never asked");
            });
            scope.spawn(move || strangers(port, is_over, opened));
            scope.spawn(|| {
                let push = context.socket(zmq::PUSH).unwrap();
                push.set_linger(0).unwrap();
                push.connect(&format!("ipc://{}", path.display())).unwrap();
                let mut random = Random::new("junk");
                repeat(is_over, rate, || {
                    let _ = push.send_multipart(junk::malformed(&mut random, 4096), zmq::DONTWAIT);
                });
            });

            let began = Instant::now();
            while began.elapsed() < time {
                number += 1;
                rows.put(&(number % KEYS).to_string(), &number).unwrap();
                if number.is_multiple_of(7) {
                    let _ = rows.delete(&(number * 3 % KEYS).to_string());
                }
                copies.iter_mut().for_each(|copy| _ = copy.read());
                syncs.extend(read_syncs(&mut watch));
                costs.iter_mut().for_each(Cost::look);
                pass(Duration::from_millis(20));
            }
            // Still under attack.
            let stored = node.store().unwrap();
            let stored: BTreeMap<_, _> = stored
                .entries("t", None)
                .map(|row| row.unwrap())
                .map(|row| (row.key.to_string(), row.value))
                .collect();
            for copy in &mut copies {
                eventually(LIMIT, || *copy.read() == stored);
            }
            costs.iter_mut().for_each(Cost::look);
            drop(attack);
            println!(
                "{number} writes, {} lies, {} connections of strangers",
                told.load(Ordering::Relaxed),
                opened.load(Ordering::Relaxed)
            );
            assert!(told.load(Ordering::Relaxed) > 1000 && opened.load(Ordering::Relaxed) > 100);
        });
        assert!(watch.is_running());
        syncs.extend(read_syncs(&mut watch));
        assert_eq!(syncs, Vec::<Value>::new(), "beside the attack");
        let [service, attacked, beside] = costs.each_ref().map(Cost::more);
        assert!(service <= SERVICE && attacked <= REPLICA && beside <= REPLICA / 4);
    });
}

/// The writer's run, and its last number, as everybody at the network can hear it.
fn origin(context: &zmq::Context, network: &str, mut write: impl FnMut()) -> Origin {
    let ear = context.socket(zmq::SUB).unwrap();
    ear.connect(network).unwrap();
    ear.set_subscribe(b"D").unwrap();
    let deadline = Instant::now() + LIMIT;
    loop {
        assert!(Instant::now() < deadline, "nothing is heard");
        write();
        if ear.poll(zmq::POLLIN, 200).unwrap() == 0 {
            continue;
        }
        let parts = ear.recv_multipart(0).unwrap();
        let mut messages = Vec::new();
        Decoder::new().decode(&Topic::ALL, &parts[1], &mut messages).unwrap();
        if let Some(Message::Update(update)) = messages.pop()
            && let Some(origin) = update.origin
        {
            return origin;
        }
    }
}
