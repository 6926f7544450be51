//! Callbacks that panic, callbacks that take long, and ends at any moment.

use std::time::Duration;

use crate::actor::{Actor, LIMIT, Part};
use crate::common::{free_port, pass};
use crate::history::{Event, now};
use crate::stage::{Load, Stage, play, wait_for};
use crate::stops::{Stops, StopsSpec};

const TOPICS: &[&str] = &["D", "tenant-1"];

/// Every callback for `chassis` panics, and the first one for `secgroup` waits; `lport` must not notice.
fn trouble(stage: &mut Stage, workers: usize) {
    let service = stage.service(free_port(), &[]);
    let mut spec = stage.program_spec("p", &[&service.address], TOPICS);
    (spec.workers, spec.trouble) = (workers, true);
    let mut program = stage.program(spec);
    let socket = stage.socket();
    let spec = stage.writer_spec("a", &socket, TOPICS);
    let mut writer = stage.writer(spec);
    let sent = writer.send(400, 1_000);
    let others = |program: &mut crate::cast::Program| {
        let lines = program.lines().iter();
        let lports =
            lines.filter(|line| matches!(&line.event, Event::Update { change, .. } if change.table == "lport"));
        lports.count() as u64
    };
    let expected = stage.published("a", "lport");
    let mut came = 0;
    if workers > 0 {
        wait_for(LIMIT, "the others do not go on", || {
            came = others(&mut program);
            came == expected
        });
    }
    pass(stage.either(Duration::from_secs(1), Duration::from_secs(10)));
    program.wake();
    program.await_delivered(sent.sent);
    let quiet = now();
    let converged = stage.converge(&mut [&mut program]);
    writer.close();
    let report = program.report();
    assert_eq!(report.panics, stage.published("a", "chassis"));
    assert_eq!(report.reported, report.panics);
    assert_eq!(program.syncs().len(), 1, "{:?}", program.syncs());
    let figures = format!(
        "{} panics, each reported; {came} of {expected} others handled while one waited, converged after {converged:.1?}",
        report.panics
    );
    stage.verdict(quiet, vec![program], figures);
}

#[test]
fn callbacks_in_trouble() {
    play("callbacks panic and sleep, with workers", Load::Light, |stage| {
        trouble(stage, 2);
    });
}

#[test]
fn callbacks_in_trouble_on_one_thread() {
    play("callbacks panic and sleep, on one thread", Load::Light, |stage| {
        trouble(stage, 0);
    });
}

#[test]
fn stop_and_drop_at_any_moment() {
    play("stop and drop at any moment", Load::Light, |stage| {
        let rounds = stage.either(12, 300);
        let seed = stage.random.next();
        let hello_interval = stage.hello();
        let mut actor = Actor::start(&Part::Stops(StopsSpec {
            rounds,
            seed,
            hello_interval,
        }));
        let stops = loop {
            // It reports its progress, so that no answer takes long.
            let (left, stops): (usize, Stops) = actor.answer();
            if left == 0 {
                break stops;
            }
        };
        actor.end();
        let Stops { before, after, .. } = stops;
        assert!(
            after.threads <= before.threads && after.files <= before.files,
            "{stops:?}"
        );
        assert!(after.kib <= before.kib + crate::checker::SPARE_KIB, "{stops:?}");
        stage.say(format!("{rounds} rounds, {stops}"));
    });
}
