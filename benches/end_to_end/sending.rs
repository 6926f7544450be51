//! The sending process, and the handle to it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tablecast::drivers::zmq::{ZmqDriver, ZmqMultiproc};
use tablecast::{Name, Publisher, PublisherOptions};

use crate::way::{PAIR, PAIR_VARIABLE, Way, key, micros, update};
use crate::{PATIENCE, SUBSCRIBERS};

/// Sends as the parent says; `id` tells writers apart.
pub fn send(way: Way<'_>, id: &str, address: &str, count: usize, rate: usize) {
    match way.is_raw() {
        true => send_raw(way, address, count, rate),
        false => send_ours(way, id, address, count, rate),
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

fn send_raw(way: Way<'_>, address: &str, count: usize, rate: usize) {
    let context = zmq::Context::new();
    let socket = context.socket(zmq::XPUB).unwrap();
    socket.set_sndhwm(0).unwrap();
    socket.set_rcvhwm(0).unwrap();
    socket.set_linger(30_000).unwrap();
    socket.set_xpub_verbose(true).unwrap();
    if way.is_secured() {
        socket.set_curve_server(true).unwrap();
        socket.set_curve_secretkey(&key("secret-key")).unwrap();
    }
    socket.bind(address).unwrap();
    println!("{}", socket.get_last_endpoint().unwrap().unwrap());
    let topics = way.topics();
    for _ in 0..if way.fans() { SUBSCRIBERS } else { topics.len() } {
        socket.recv_bytes(0).unwrap();
    }
    println!("subscribed");
    let mut payload = way.payload();
    let stamp = payload.len() - 8;
    paced(count, rate, |i| {
        if rate != 0 {
            payload[stamp..].copy_from_slice(&micros().to_ne_bytes());
        }
        socket.send(topics[i % topics.len()].as_str(), zmq::SNDMORE).unwrap();
        socket.send(&payload[..], 0).unwrap();
    });
}

fn send_ours(way: Way<'_>, id: &str, address: &str, count: usize, rate: usize) {
    let options = PublisherOptions {
        id: Some(id.into()),
        codec: way.codec(),
        hello_interval: way.hello_interval(),
        ..PublisherOptions::default()
    };
    let publisher = if way.through_service() {
        Publisher::new(&ZmqMultiproc::new(address, way.options()).unwrap(), options).unwrap()
    } else {
        Publisher::new(&ZmqDriver::new(address, way.options()).unwrap(), options).unwrap()
    };
    println!("{}", publisher.address().unwrap_or_default());
    if way.fans() {
        publisher.wait_subscribers(SUBSCRIBERS, PATIENCE).unwrap();
    }
    println!("subscribed");
    let mut update = update();
    let keys: Vec<Name> = (0..1000).map(|i| format!("port-{i:08}").into()).collect();
    let topics = way.topics();
    paced(count, rate, |i| {
        update.key.clone_from(&keys[i % keys.len()]);
        update.topic.clone_from(&topics[i % topics.len()]);
        // As in practice, every update is later than the one before.
        update.timestamp = if rate == 0 { update.timestamp + 1 } else { micros() };
        publisher.send_event(&update).unwrap();
    });
}

/// A process of this benchmark that is told when to begin.
pub struct Other {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Other {
    pub fn start(args: &[&str]) -> Other {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(args)
            .envs(PAIR.get().map(|file| (PAIR_VARIABLE, file)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Other { child, lines }
    }

    /// A sender, and its address.
    pub fn sender(way: Way<'_>, id: &str, address: &str, count: usize, rate: usize) -> (Other, String) {
        let mut sender = Other::start(&["send", way.0, id, address, &count.to_string(), &rate.to_string()]);
        let address = sender.line();
        (sender, address)
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    pub fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// The rate of a sender that has sent everything, which may end now.
    pub fn finish(mut self) -> f64 {
        let rate = self.line().parse().unwrap();
        self.go();
        self.child.wait().unwrap();
        rate
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
