//! Publishers that come, go, die and move, programs that follow them, and the store through which they do.

use std::time::Duration;

use crate::cast::{Program, Writer};
use crate::common::pass;
use crate::history::{Time, Told, now};
use crate::registry::RegistrySpec;
use crate::stage::{Load, Stage, play, since, wait_for};
use crate::writer::Clock;

const TOPICS: &[&str] = &["D", "tenant-1"];

/// Time that a busy machine may add until a publisher is followed.
const SPARE: Duration = Duration::from_secs(1);

const HOUR: i64 = 3600;

struct Scene<'a> {
    stage: &'a mut Stage,
    registry: RegistrySpec,
    programs: [Program; 2],
    /// A writer that runs all the time.
    steady: Writer,
}

impl<'a> Scene<'a> {
    fn begin(stage: &'a mut Stage, store: &str) -> Scene<'a> {
        let registry = RegistrySpec {
            store: store.into(),
            timeout: Duration::from_millis(stage.either(1_500, 6_000)),
            interval: Duration::from_millis(stage.either(200, 1_000)),
        };
        let steady = writer(stage, &registry, "steady", 0);
        let programs = ["p", "q"].map(|name| {
            let mut spec = stage.program_spec(name, &[], TOPICS);
            spec.registry = Some(registry.clone());
            stage.program(spec)
        });
        Scene {
            stage,
            registry,
            programs,
            steady,
        }
    }

    fn writer(&mut self, name: &str, wrong: i64) -> Writer {
        writer(self.stage, &self.registry, name, wrong)
    }

    /// Waits until the programs follow the steady publisher and exactly these others.
    fn await_following(&mut self, others: &[&Writer]) {
        let mut addresses = vec![&*self.steady.address];
        addresses.extend(others.iter().map(|writer| &*writer.address));
        for program in &mut self.programs {
            program.await_following(&addresses);
        }
    }

    fn syncs(&mut self) -> [Vec<(Time, Told)>; 2] {
        self.programs.each_mut().map(Program::syncs)
    }

    /// The sync events, once those of the start, which may take a while, have come.
    fn settled_syncs(&mut self) -> [Vec<(Time, Told)>; 2] {
        pass(self.stage.hellos(2.0));
        self.syncs()
    }

    /// A time that includes two readings and a renewal, longer than the timeout after which a publisher is dead.
    fn while_away(&self) -> Duration {
        self.registry.timeout * 2
    }

    fn end(mut self, mut others: Vec<Writer>, figures: String) {
        self.steady.halt();
        others.iter_mut().for_each(Writer::halt);
        let quiet = now();
        let [p, q] = &mut self.programs;
        let converged = self.stage.converge(&mut [p, q]);
        self.steady.close();
        others.into_iter().for_each(Writer::close);
        let figures = format!("{figures}, converged after {converged:.1?}");
        self.stage.verdict(quiet, self.programs.into(), figures);
    }
}

/// A running writer, in a process whose clock is wrong by this many seconds.
fn writer(stage: &mut Stage, registry: &RegistrySpec, name: &str, wrong: i64) -> Writer {
    let mut spec = stage.writer_spec(name, "tcp://127.0.0.1:0", TOPICS);
    spec.id = Some(name.into());
    spec.clock = Clock::Off(wrong);
    spec.registry = Some(registry.clone());
    let mut writer = stage.writer(spec);
    writer.begin(100);
    writer
}

fn follow(stage: &mut Stage, store: &str) {
    let mut scene = Scene::begin(stage, store);
    let attendance = scene.registry.attend();
    let (timeout, interval) = (scene.registry.timeout, scene.registry.interval);

    let mut late = scene.writer("late", HOUR);
    let start = now();
    scene.await_following(&[&late]);
    let came = since(start);

    // It says goodbye, so there is no loss.
    late.halt();
    let syncs = scene.settled_syncs();
    late.close();
    let start = now();
    scene.await_following(&[]);
    let went = since(start);
    pass(scene.stage.hellos(4.0));
    assert_eq!(scene.syncs(), syncs, "told that one went with a goodbye");

    let doomed = scene.writer("doomed", HOUR);
    scene.await_following(&[&doomed]);
    doomed.kill();
    let start = now();
    scene.await_following(&[]);
    let died = since(start);

    // It is killed, and begins again elsewhere, two hours earlier by its clock.
    let mover = scene.writer("mover", HOUR);
    scene.await_following(&[&mover]);
    mover.kill();
    let mut mover = scene.writer("mover", -HOUR);
    let start = now();
    scene.await_following(&[&mover]);
    let moved = since(start);

    // While suspended it is taken for dead; then it comes back.
    assert_eq!(attendance.left(), ["late", "doomed"]);
    mover.actor.process().signal("STOP");
    scene.await_following(&[]);
    wait_for(SPARE, "its row is still there", || !attendance.has("mover"));
    mover.actor.process().signal("CONT");
    let start = now();
    scene.await_following(&[&mover]);
    let back = since(start);
    assert_eq!(attendance.left(), ["late", "doomed", "mover"]);

    let figures = format!(
        "followed {came:.1?} after it came, {went:.1?} after it went, {moved:.1?} after it moved (interval {interval:?}), \
         {died:.1?} after it died (and timeout {timeout:?}), {back:.1?} after it was back"
    );
    for took in [came, went, moved] {
        assert!(took <= interval + SPARE, "{figures}");
    }
    // Its last renewal was up to a third of the timeout before. Time in which a busy machine let no observer look does
    // not count.
    assert!(timeout * 2 / 3 <= died, "{figures}");
    assert!(died <= timeout * 2 + interval + SPARE, "{figures}");
    assert!(back <= timeout / 3 + interval + SPARE, "{figures}");
    scene.end(vec![mover], figures);
}

/// No publisher can renew for longer than the timeout: none is removed, then or afterwards, and no loss is reported.
/// Nor does a program that could not look remove any.
fn nobody_is_removed(stage: &mut Stage, store: &str, away: impl FnOnce(Duration)) {
    let mut scene = Scene::begin(stage, store);
    let attendance = scene.registry.attend();
    let other = scene.writer("other", -HOUR);
    scene.await_following(&[&other]);
    wait_for(SPARE, "not both are seen", || {
        attendance.has("steady") && attendance.has("other")
    });
    let (syncs, long) = (scene.settled_syncs(), scene.while_away());
    away(long);
    scene.await_following(&[&other]);
    pass(long);
    scene.await_following(&[&other]);
    assert_eq!(scene.syncs(), syncs, "told of something");

    scene.programs[1].actor.process().signal("STOP");
    pass(long);
    scene.programs[1].actor.process().signal("CONT");
    pass(long);
    scene.await_following(&[&other]);
    assert_eq!(attendance.left(), [""; 0]);
    scene.end(vec![other], format!("nobody removed in {long:?} without the store"));
}

#[test]
fn followed_through_sqlite() {
    play("publishers come, go, die, move; sqlite", Load::Light, |stage| {
        let file = stage.file("registry.db");
        follow(stage, &file);
    });
}

#[test]
fn sqlite_locked() {
    play("registry in sqlite that is locked", Load::Light, |stage| {
        let file = stage.file("registry.db");
        nobody_is_removed(stage, &file, |long| {
            let lock = rusqlite::Connection::open(&file).unwrap();
            lock.busy_timeout(SPARE).unwrap();
            lock.execute_batch("BEGIN IMMEDIATE").unwrap();
            pass(long);
            lock.execute_batch("ROLLBACK").unwrap();
        });
    });
}

/// Processes that have the files open, and a later one, continue with the same new files.
fn removed(stage: &mut Stage, suffixes: &[&str]) {
    let file = stage.file("registry.db");
    let mut scene = Scene::begin(stage, &file);
    let attendance = scene.registry.attend();
    let other = scene.writer("other", -HOUR);
    scene.await_following(&[&other]);
    wait_for(SPARE, "not both are seen", || {
        attendance.has("steady") && attendance.has("other")
    });
    for suffix in suffixes {
        std::fs::remove_file(format!("{file}{suffix}")).unwrap();
    }
    let late = scene.writer("late", HOUR);
    let start = now();
    scene.await_following(&[&other, &late]);
    let came = since(start);
    pass(scene.while_away());
    scene.await_following(&[&other, &late]);
    assert_eq!(attendance.left(), [""; 0]);
    let figures = format!("one who came after {suffixes:?} were removed was followed after {came:.1?}");
    scene.end(vec![other, late], figures);
}

#[test]
fn sqlite_files_removed() {
    play("registry in sqlite whose files are removed", Load::Light, |stage| {
        removed(stage, &["", "-wal", "-shm"]);
    });
}

#[test]
fn sqlite_log_removed() {
    play("registry in sqlite whose log is removed", Load::Light, |stage| {
        removed(stage, &["-wal"]);
    });
}

#[cfg(feature = "redis")]
mod redis {
    use super::*;
    use crate::redis_server::Server;

    #[test]
    fn followed_through_redis() {
        play("publishers come, go, die, move; Redis", Load::Light, |stage| {
            let server = Server::start();
            follow(stage, &server.address());
        });
    }

    #[test]
    fn redis_hangs() {
        play("registry in a Redis that hangs", Load::Light, |stage| {
            let server = Server::start();
            nobody_is_removed(stage, &server.address(), |long| {
                server.hang();
                pass(long);
                server.resume();
            });
        });
    }

    #[test]
    fn redis_is_flushed() {
        play("registry in a Redis that is flushed", Load::Light, |stage| {
            let server = Server::start();
            nobody_is_removed(stage, &server.address(), |long| {
                server.ask::<()>(&["FLUSHALL"]);
                pass(long);
            });
        });
    }

    /// All rows are lost at once; living publishers come back.
    #[test]
    fn redis_forgets() {
        play("registry in a Redis that loses it", Load::Light, |stage| {
            let mut server = Server::start();
            let mut scene = Scene::begin(stage, &server.address());
            let other = scene.writer("other", HOUR);
            scene.await_following(&[&other]);
            server.kill();
            server.restart();
            let start = now();
            let attendance = scene.registry.attend();
            wait_for(scene.registry.timeout, "they do not come back", || {
                attendance.has("steady") && attendance.has("other")
            });
            scene.await_following(&[&other]);
            let back = since(start);
            scene.end(vec![other], format!("followed again {back:.1?} after the restart"));
        });
    }
}
