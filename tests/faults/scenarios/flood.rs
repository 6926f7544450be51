//! Malformed frames on every port, and very many good ones.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tablecast::drivers::zmq::{ZmqDriver, ZmqMultiproc, ZmqOptions};
use tablecast::{Service, ServiceOptions};

use crate::cast::Writer;
use crate::common::{free_port, pass};
use crate::history::now;
use crate::junk::malformed;
use crate::random::Random;
use crate::stage::{Load, Stage, play, wait_for};

const TOPICS: &[&str] = &["D", "tenant-1"];

/// Frames a second, on each port.
const RATE: u64 = 10_000;

/// The largest message that is accepted.
const LIMIT: usize = 4096;

/// Calls `send` at the rate on a thread of its own. Returns the time that took.
fn at_rate(count: u64, mut send: impl FnMut() + Send + 'static) -> JoinHandle<Duration> {
    let flood = move || {
        let start = Instant::now();
        for number in 0..count {
            let due = start + Duration::from_secs(1) / RATE as u32 * number as u32;
            if due > Instant::now() {
                pass(Duration::from_millis(1));
            }
            send();
        }
        start.elapsed()
    };
    std::thread::Builder::new().name("flood".into()).spawn(flood).unwrap()
}

/// Sends what a process of this host can send to the service; the service or subscribers must count all of it.
fn on_the_socket(socket: &str, count: u64, mut random: Random) -> JoinHandle<Duration> {
    let context = zmq::Context::new();
    let push = context.socket(zmq::PUSH).unwrap();
    push.set_linger(10_000).unwrap();
    push.connect(socket).unwrap();
    at_rate(count, move || {
        let _context = &context;
        let mut frames = malformed(&mut random, LIMIT);
        if frames.len() == 2 && !frames[1].is_empty() && random.below(5) == 0 {
            // The topic of publishers' hellos.
            frames[0] = "\u{10FFFF}tablecast/hello".into();
        }
        push.send_multipart(frames, 0).unwrap();
    })
}

/// The greeting of ZMTP 3 and the READY of a subscriber.
fn greeting() -> Vec<u8> {
    let mut bytes = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL".to_vec();
    bytes.resize(64, 0);
    bytes.extend(b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB");
    bytes
}

/// Sends what a stranger can send to the network port; reconnects when it is disconnected.
fn on_the_port(address: &str, count: u64, mut random: Random) -> JoinHandle<Duration> {
    let target = address.strip_prefix("tcp://").unwrap().to_owned();
    let mut stranger: Option<TcpStream> = None;
    at_rate(count, move || {
        let stream = stranger.get_or_insert_with(|| {
            let mut stream = TcpStream::connect(&target).unwrap();
            if random.below(4) > 0 {
                let _ = stream.write_all(&greeting());
            }
            stream
        });
        let body = random.bytes(100);
        let mut frame = vec![0, body.len() as u8];
        match random.below(100) {
            // Subscriptions to anything, half of them with further frames.
            0..40 => {
                frame[0] = random.below(2) as u8;
                frame.extend(body);
                if let Some(first) = frame.get_mut(2) {
                    *first = random.below(3) as u8;
                }
            }
            // Commands that do not exist.
            40..60 => {
                frame[0] = 4;
                frame.extend(body);
            }
            // A frame without a body, unknown flags, the beginning of a huge frame, noise.
            60..70 => frame = vec![0, 0],
            70..98 => {
                frame[0] = 8;
                frame.extend(body);
            }
            98 => frame = vec![2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            _ => frame = body,
        }
        if stream.write_all(&frame).is_err() {
            stranger = None;
        }
    })
}

fn service(stage: &Stage) -> Service {
    let zmq = ZmqOptions::default();
    let multiproc = ZmqMultiproc::new(&stage.socket(), zmq.clone()).unwrap();
    let network = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", zmq).unwrap());
    let options = ServiceOptions {
        max_message_bytes: LIMIT,
        hello_interval: stage.hello(),
        ..ServiceOptions::default()
    };
    Service::start(&multiproc, &stage.socket(), &*network, options).unwrap()
}

#[test]
fn malformed_frames() {
    play("malformed frames on every port", Load::Heavy, |stage| {
        let service = service(stage);
        let address = service.address().unwrap();
        let mut spec = stage.program_spec("p", &[&address], TOPICS);
        spec.max_message_bytes = LIMIT;
        let mut program = stage.program(spec);
        let socket = stage.socket();
        let spec = stage.writer_spec("a", &socket, TOPICS);
        let mut writer = stage.writer(spec);
        writer.begin(500);
        let bad = RATE * stage.either(2, 30);
        let [one, other] = [(); 2].map(|()| Random::from_seed(stage.random.next()));
        let floods = [on_the_socket(&socket, bad, one), on_the_port(&address, bad, other)];
        let took = floods.map(|flood| flood.join().unwrap());
        let sent = writer.stop();
        program.await_delivered(sent.sent);
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        writer.close();
        assert_eq!(sent.refused, 0);
        wait_for(stage.bound(), "not all are counted", || {
            service.stats().malformed + program.report().malformed == bad
        });
        assert_eq!(program.syncs().len(), 1, "{:?}", program.syncs());
        let report = program.report();
        let rates = took.map(|took| (bad as f64 / took.as_secs_f64()) as u64);
        let figures = format!(
            "{} and {} frames a second, {} counted by the service and {} by the subscriber, converged after {converged:.1?}",
            rates[0],
            rates[1],
            service.stats().malformed,
            report.malformed
        );
        stage.verdict(quiet, vec![program], figures);
    });
}

/// No fault at all: writers come and go.
#[test]
fn a_million_updates() {
    play("a million updates without a fault", Load::Heavy, |stage| {
        let service = stage.service(free_port(), &[]);
        let socket = stage.socket();
        let mut program = stage.program(stage.program_spec("p", &[&service.address], TOPICS));
        let (total, batch) = stage.either((50_000, 2_000), (1_000_000, 10_000));
        let start = Instant::now();
        let (mut sent, mut number) = (0, 0);
        while sent < total {
            let mut writers = [(); 2].map(|()| {
                number += 1;
                let spec = stage.writer_spec(&format!("a{number}"), &socket, TOPICS);
                let mut writer = stage.writer(spec);
                writer.order(batch, 15_000);
                writer
            });
            for writer in &mut writers {
                sent += writer.outcome().sent;
            }
            program.await_delivered(sent);
            writers.into_iter().for_each(Writer::close);
        }
        let rate = sent as f64 / start.elapsed().as_secs_f64();
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        // No sync event comes later either for what a gone writer leaves behind.
        pass(stage.hellos(4.0));
        let syncs = program.syncs();
        assert!(syncs.len() <= 2 * TOPICS.len(), "{syncs:?}");
        let figures = format!(
            "{number} writers came and went, {rate:.0} updates a second, {} syncs, converged after {converged:.1?}",
            syncs.len()
        );
        let figures = stage.verdict(quiet, vec![program], figures);
        assert_eq!((figures.sent, figures.delivered), (sent, sent));
    });
}
