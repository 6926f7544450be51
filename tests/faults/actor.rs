//! Processes of this test program that play a part: they take orders on stdin, one a line, and answer on stdout.

use std::env;
use std::io::{self, BufRead, Write};
use std::process::Command;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::fleet::{self, FleetSpec};
use super::node::{self, NodeSpec};
use super::process::Process;
use super::program::{self, ProgramSpec};
use super::server::{self, ServerSpec};
use super::stops::{self, StopsSpec};
use super::writer::{self, WriterSpec};

/// The longest time for anything here.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The part that a process plays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Part {
    Writer(WriterSpec),
    Program(ProgramSpec),
    Fleet(FleetSpec),
    Stops(StopsSpec),
    Server(ServerSpec),
    Node(NodeSpec),
}

/// Set in such a process; its first line of input is its part.
const PART: &str = "TABLECAST_TEST_PART";

/// Beginning of an answer; the test harness writes to stdout too.
const MARK: &str = "answer: ";

/// The body of a process with a part; does nothing in any other process.
pub(crate) fn run() {
    if env::var_os(PART).is_none() {
        return;
    }
    let mut part = String::new();
    io::stdin().read_line(&mut part).unwrap();
    match serde_json::from_str(&part).unwrap() {
        Part::Writer(spec) => writer::run(spec),
        Part::Program(spec) => program::run(&spec),
        Part::Fleet(spec) => fleet::run(&spec),
        Part::Stops(spec) => stops::run(&spec),
        Part::Server(spec) => server::run(&spec),
        Part::Node(spec) => node::run(&spec),
    }
}

/// The orders, until the giving process is gone.
pub(crate) fn orders<T: DeserializeOwned + Send + 'static>() -> Receiver<T> {
    let (sender, orders) = unbounded();
    let read = move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("orders".into()).spawn(read).unwrap();
    orders
}

/// Answers an order.
pub(crate) fn answer(answer: &impl Serialize) {
    println!("{MARK}{}", serde_json::to_string(answer).unwrap());
    io::stdout().flush().unwrap();
}

/// A process that plays a part; killed when this is dropped.
pub(crate) struct Actor(Process);

impl Actor {
    pub(crate) fn start(part: &Part) -> Actor {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "process", "--nocapture"]);
        // The symbols of a backtrace would stay in memory, and look like a leak.
        command.env(PART, "1").env("RUST_BACKTRACE", "0");
        if matches!(part, Part::Stops(_)) {
            // Hundreds of threads, one after the other, leave pieces of as many arenas behind, which would look like a
            // leak.
            command.env("MALLOC_ARENA_MAX", "1");
        }
        let mut actor = Actor(Process::start(command));
        actor.tell(part);
        actor
    }

    /// Gives an order.
    pub(crate) fn tell(&mut self, order: &impl Serialize) {
        self.0.write(&format!("{}\n", serde_json::to_string(order).unwrap()));
    }

    /// Waits for the next answer.
    pub(crate) fn answer<T: DeserializeOwned>(&mut self) -> T {
        loop {
            if let Some((_, answer)) = self.0.line().split_once(MARK) {
                return serde_json::from_str(answer).unwrap();
            }
        }
    }

    pub(crate) fn ask<T: DeserializeOwned>(&mut self, order: &impl Serialize) -> T {
        self.tell(order);
        self.answer()
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.0
    }

    /// Ends the process, and waits for its end.
    pub(crate) fn end(mut self) {
        let end = self.0.end();
        assert_eq!(end.code, Some(0), "{end:#?}");
    }
}
