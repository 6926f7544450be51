//! Subscribers that are too slow, or suspended for a while.

use std::time::Duration;

use crate::cast::Writer;
use crate::common::{free_port, pass};
use crate::history::now;
use crate::holdings::memory;
use crate::proxy::{Proxy, Way};
use crate::stage::{Load, later, play, since};

const TOPICS: &[&str] = &["D", "tenant-1"];

/// Memory in KiB that a service may use beyond its queues.
const SERVICE_KIB: u64 = 16 << 10;

/// Time that a busy machine may add to reading a backlog, before which a loss behind it is not known.
const SPARE: Duration = Duration::from_secs(1);

/// More updates than the service and the system keep for a stopped subscriber.
const MISSED: u64 = 7_000;

#[test]
fn subscriber_stopped() {
    play("subscriber stopped", Load::Heavy, |stage| {
        // Enough that a program loses nothing merely because it waits for a processor.
        let (hwm, bytes) = (3_000, 2_000);
        let mut service = stage.service(free_port(), &["--send-hwm", &hwm.to_string()]);
        let mut victim = stage.program(stage.program_spec("victim", &[&service.address], TOPICS));
        let mut other = stage.program(stage.program_spec("other", &[&service.address], TOPICS));
        let socket = stage.socket();
        let mut writers = ["a", "b"].map(|name| {
            let mut spec = stage.writer_spec(name, &socket, TOPICS);
            spec.bytes = bytes;
            let mut writer = stage.writer(spec);
            writer.begin(1_500);
            writer
        });
        pass(stage.hellos(2.0));
        let process = service.process.id().to_string();
        let before = memory(&process);
        victim.actor.process().signal("STOP");
        let (mut most, mut rounds) = (before, 0);
        let missed = other.report().delivered + MISSED;
        // Writers may be slow, and then nothing is lost yet.
        while rounds < stage.either(25, 300) || other.report().delivered < missed {
            pass(Duration::from_millis(100));
            most = most.max(memory(&process));
            rounds += 1;
        }
        let continued = now();
        victim.actor.process().signal("CONT");
        let (told, sync) = victim.await_sync(continued, |_| true);
        victim.wait_live();
        pass(stage.hellos(2.0));
        writers.iter_mut().for_each(Writer::halt);
        let quiet = now();
        let converged = stage.converge(&mut [&mut victim, &mut other]);
        writers.into_iter().for_each(Writer::close);
        assert!(told <= stage.hellos(2.0) + SPARE, "told after {told:?}");
        assert_eq!(other.syncs().len(), 1, "{:?}", other.syncs());
        // The queues for both programs, and the service's own memory.
        let bound = 2 * (hwm * (bytes as u64 + 500)) / 1024 + SERVICE_KIB;
        let growth = most - before;
        assert!(growth <= bound, "the service grew by {growth} KiB");
        let told = stage.in_hellos(told);
        let figures = format!(
            "{} told {told} after it went on (bound 2 H), the service grew by {growth} KiB (bound {bound}), \
             converged after {converged:.1?}",
            sync.reason
        );
        let figures = stage.verdict(quiet, vec![victim, other], figures);
        assert!(figures.declared > 0, "nothing was lost: the fault was none");
        service.process.signal("TERM");
        assert_eq!(service.process.end().code, Some(0));
    });
}

/// More updates than the publisher keeps for a slow reader.
#[test]
fn high_water_mark() {
    play("high-water mark reached", Load::Heavy, |stage| {
        let mut spec = stage.writer_spec("a", "tcp://127.0.0.1:0", TOPICS);
        (spec.send_hwm, spec.bytes) = (50, 10_000);
        let mut writer = stage.writer(spec);
        let proxy = Proxy::to(&writer.address);
        let mut slow = stage.program(stage.program_spec("slow", &[proxy.address()], TOPICS));
        // On a busy machine even these reach the mark.
        writer.send(100, 1_000);
        slow.await_delivered(1);
        writer.prepare(stage.either(2_500, 10_000));
        // Too short for the silence to be noticed.
        proxy.cut(&[Way::ToSubscriber]);
        let sent = writer.burst();
        let mended = now();
        proxy.mend();
        let (told, sync) = slow.await_sync(mended, |_| true);
        // The writer goes on after the loss.
        writer.send(100, 1_000);
        let quiet = now();
        let converged = stage.converge(&mut [&mut slow]);
        writer.close();
        assert_eq!(sent.refused, 0);
        assert!(told <= stage.hellos(2.0), "told after {told:?}");
        let told = stage.in_hellos(told);
        let figures = format!(
            "{} told {told} after it reads on (bound 2 H), converged after {converged:.1?}",
            sync.reason
        );
        let figures = stage.verdict(quiet, vec![slow], figures);
        assert!(figures.declared > 0, "nothing was lost: the fault was none");
    });
}

/// A publisher that hangs: its connections stay, but nothing comes.
#[test]
fn publisher_stopped() {
    play("publisher stopped", Load::Light, |stage| {
        let service = stage.service(free_port(), &[]);
        let mut program = stage.program(stage.program_spec("p", &[&service.address], TOPICS));
        let socket = stage.socket();
        let spec = stage.writer_spec("a", &socket, TOPICS);
        let mut writer = stage.writer(spec);
        writer.begin(200);
        pass(stage.hello() + stage.hello().mul_f64(stage.random.below(100) as f64 / 100.0));
        let stopped = now();
        service.process.signal("STOP");
        let (told, sync) = program.await_sync(stopped, |_| true);
        pass(stage.hellos(stage.either(3.0, 10.0)));
        let continued = now();
        service.process.signal("CONT");
        program.wait_live();
        let back = since(continued);
        pass(stage.hello());
        let refused = writer.stop().refused;
        writer.repair();
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        writer.close();
        let bound = stage.hellos(3.0);
        assert!(told <= bound, "told after {told:?}");
        assert!(
            !program.was_live(later(stopped, bound), continued),
            "live while it was stopped"
        );
        let figures = format!(
            "{} told after {} (bound 3 H), live again {} after it went on, refused {refused}, \
             converged after {converged:.1?}",
            sync.reason,
            stage.in_hellos(told),
            stage.in_hellos(back),
        );
        stage.verdict(quiet, vec![program], figures);
    });
}
