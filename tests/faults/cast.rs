//! The processes of a scenario, from its side.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::actor::{Actor, LIMIT, Part};
use super::checker::PROGRAM;
use super::common::pass;
use super::history::{Event, Line, Log, Tail, Time, Told};
use super::process::Process;
use super::program::{Order, ProgramSpec, Report};
use super::stage::{duration, wait_for};
use super::writer::{self, Sent, WriterSpec};

/// The publisher service as a process, killed when this is dropped.
pub(crate) struct Service {
    pub(crate) process: Process,
    /// The address that subscribers connect to.
    pub(crate) address: String,
}

impl Service {
    pub(crate) fn start(command: Command) -> Service {
        let mut process = Process::start(command);
        let line = process.line();
        let address = line.split(' ').nth(1).unwrap().to_owned();
        Service { process, address }
    }
}

/// A writer's process.
pub(crate) struct Writer {
    pub(crate) actor: Actor,
    /// The address that it is bound to, if any.
    pub(crate) address: String,
}

impl Writer {
    pub(crate) fn start(spec: WriterSpec) -> Writer {
        let mut actor = Actor::start(&Part::Writer(spec));
        let opened: Result<String, String> = actor.answer();
        let address = opened.unwrap();
        Writer { actor, address }
    }

    /// Sends this many updates, at `rate` a second, and waits until that is done.
    pub(crate) fn send(&mut self, count: u64, rate: u64) -> Sent {
        // In steps, so that no answer takes too long.
        let step = rate * LIMIT.as_secs() / 3;
        let mut all = Sent::default();
        for begin in (0..count).step_by(step as usize) {
            self.order(step.min(count - begin), rate);
            let Sent { sent, refused } = self.outcome();
            (all.sent, all.refused) = (all.sent + sent, all.refused + refused);
        }
        all
    }

    /// Begins to send this many updates, at `rate` a second; [`Writer::outcome`] has to follow.
    pub(crate) fn order(&mut self, count: u64, rate: u64) {
        self.actor.tell(&writer::Order::Send(count, rate));
    }

    /// Stores this many changes, which [`Writer::burst`] sends as fast as it can.
    pub(crate) fn prepare(&mut self, count: u64) {
        self.actor.ask::<()>(&writer::Order::Prepare(count));
    }

    pub(crate) fn burst(&mut self) -> Sent {
        self.actor.ask(&writer::Order::Burst)
    }

    /// Waits for the end of the last order.
    pub(crate) fn outcome(&mut self) -> Sent {
        self.actor.answer()
    }

    /// Begins to send this many updates a second, until it is stopped.
    pub(crate) fn begin(&mut self, rate: u64) {
        self.order(u64::MAX, rate);
    }

    pub(crate) fn stop(&mut self) -> Sent {
        self.actor.ask(&writer::Order::Stop)
    }

    /// As [`Writer::stop`], whatever the outcome.
    pub(crate) fn halt(&mut self) {
        self.stop();
    }

    pub(crate) fn repair(&mut self) {
        self.actor.ask::<()>(&writer::Order::Repair);
    }

    pub(crate) fn store_only(&mut self) {
        self.actor.ask::<()>(&writer::Order::StoreOnly);
    }

    pub(crate) fn kill(mut self) {
        self.actor.process().kill();
    }

    /// Ends it with a goodbye.
    pub(crate) fn close(self) {
        self.actor.end();
    }
}

/// A program's process.
pub(crate) struct Program {
    pub(crate) actor: Actor,
    pub(crate) topics: BTreeSet<String>,
    pub(crate) path: PathBuf,
    tail: Tail,
    lines: Vec<Line>,
}

impl Program {
    pub(crate) fn start(spec: ProgramSpec) -> Program {
        let path = spec.folder.join(format!("{PROGRAM}{}", spec.name));
        let topics = spec.topics.clone();
        let mut actor = Actor::start(&Part::Program(spec));
        actor.answer::<()>();
        Program {
            actor,
            topics,
            tail: Tail::of(&path),
            lines: Vec::new(),
            path,
        }
    }

    pub(crate) fn wait_live(&mut self) {
        self.actor.ask::<Result<(), String>>(&Order::WaitLive).unwrap();
    }

    pub(crate) fn wait_synced(&mut self) {
        self.actor.ask::<Result<(), String>>(&Order::WaitSynced).unwrap();
    }

    pub(crate) fn report(&mut self) -> Report {
        self.actor.ask(&Order::Report)
    }

    /// Registers a topic, and waits until it is live.
    pub(crate) fn register(&mut self, topic: &str) {
        self.topics.insert(topic.into());
        let live: Result<(), String> = self.actor.ask(&Order::Register(topic.into()));
        live.unwrap();
    }

    pub(crate) fn unregister(&mut self, topic: &str) {
        self.topics.remove(topic);
        self.actor.ask::<()>(&Order::Unregister(topic.into()));
    }

    /// Waits until it listens to exactly these addresses and all are live.
    pub(crate) fn await_following(&mut self, addresses: &[&str]) {
        let wanted = addresses.iter().map(|address| ((*address).to_owned(), true));
        let wanted: BTreeMap<String, bool> = wanted.collect();
        let what = format!("{addresses:?} are not followed, and only they");
        wait_for(LIMIT, &what, || self.addresses() == wanted);
    }

    /// The addresses that it listens to, and whether they are live.
    pub(crate) fn addresses(&mut self) -> BTreeMap<String, bool> {
        self.actor.ask(&Order::Addresses)
    }

    /// Number of live topics in its status.
    pub(crate) fn live_topics(&mut self) -> usize {
        self.actor.ask(&Order::LiveTopics)
    }

    /// Waits until it has heard these publishers.
    pub(crate) fn await_heard(&mut self, publishers: &[&str]) {
        let publishers: Vec<String> = publishers.iter().map(|id| (*id).into()).collect();
        let what = format!("{publishers:?} are not all heard");
        wait_for(LIMIT, &what, || self.actor.ask(&Order::Hears(publishers.clone())));
    }

    /// Its log so far.
    pub(crate) fn lines(&mut self) -> &[Line] {
        self.lines.extend(self.tail.next());
        &self.lines
    }

    /// The sync events so far.
    pub(crate) fn syncs(&mut self) -> Vec<(Time, Told)> {
        let syncs = self.lines().iter().filter_map(|line| match &line.event {
            Event::Sync(told) => Some((line.at, told.clone())),
            _ => None,
        });
        syncs.collect()
    }

    /// Waits for a sync event since `start` for which `is_it` holds. Returns how long after `start` it came, and the
    /// event.
    pub(crate) fn await_sync(&mut self, start: Time, mut is_it: impl FnMut(&Told) -> bool) -> (Duration, Told) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut syncs = self.syncs().into_iter();
            if let Some((at, told)) = syncs.find(|(at, told)| *at >= start && is_it(told)) {
                return (duration(at - start), told);
            }
            if Instant::now() >= deadline {
                let syncs = self.syncs().into_iter().map(|(at, told)| (at - start, told));
                let syncs: Vec<_> = syncs.collect();
                panic!("no such sync event within {LIMIT:?}; in microseconds from then: {syncs:#?}");
            }
            pass(Duration::from_millis(5));
        }
    }

    /// True if it was live by its log at any time in this span.
    pub(crate) fn was_live(&mut self, from: Time, to: Time) -> bool {
        let mut live = false;
        let mut was_live = false;
        for line in self.lines() {
            if let Event::Live(now) = line.event {
                was_live |= live && line.at >= from;
                live = now && line.at <= to;
            }
        }
        was_live || live
    }

    /// Waits until this many updates were delivered.
    pub(crate) fn await_delivered(&mut self, count: u64) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let report = self.report();
            if report.delivered >= count {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not all {count} came: {report:?}, {:?}",
                self.syncs()
            );
            pass(Duration::from_millis(5));
        }
    }

    pub(crate) fn kill(mut self) {
        self.actor.process().kill();
        // The last line may be incomplete.
        let rest = std::fs::read(&self.path).unwrap();
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        std::fs::write(&self.path, &rest[..whole]).unwrap();
        Log::append_to(&self.path).write(Event::Killed);
    }

    /// Lets it log its end.
    pub(crate) fn end(mut self) {
        self.actor.ask::<()>(&Order::End);
        self.actor.end();
    }

    /// Ends the wait of its callback.
    pub(crate) fn wake(&mut self) {
        self.actor.ask::<()>(&Order::Wake);
    }
}
