//! A network that is cut silently, and one that doubles, delays and reorders.

use std::time::Duration;

use crate::common::pass;
use crate::history::now;
use crate::proxy::{BOTH_WAYS, Fate, Proxy, Way};
use crate::random::Random;
use crate::scenarios::is_update;
use crate::stage::{Load, Stage, later, play};

const TOPICS: &[&str] = &["D", "tenant-1"];

fn cut(stage: &mut Stage, ways: &[Way]) {
    let writer = stage.writer_spec("a", "tcp://127.0.0.1:0", TOPICS);
    let mut writer = stage.writer(writer);
    let proxy = Proxy::to(&writer.address);
    let mut far = stage.program(stage.program_spec("far", &[proxy.address()], TOPICS));
    let mut near = stage.program(stage.program_spec("near", &[&writer.address], TOPICS));
    writer.begin(200);
    // The cut may come at any moment between two hellos.
    pass(stage.hello() + stage.hello().mul_f64(stage.random.below(100) as f64 / 100.0));
    let cut = now();
    proxy.cut(ways);
    let (noticed, told) = far.await_sync(cut, |_| true);
    pass(stage.either(Duration::from_secs(1), Duration::from_secs(10)));
    let mended = now();
    proxy.mend();
    far.wait_live();
    let back = now();
    pass(stage.hello());
    writer.stop();
    let quiet = now();
    let converged = stage.converge(&mut [&mut far, &mut near]);
    let bound = stage.hellos(3.0);
    assert!(noticed <= bound, "{} was noticed after {noticed:?}", told.reason);
    assert!(!far.was_live(later(cut, bound), mended), "live while it was cut");
    assert_eq!(near.syncs().len(), 1, "{:?}", near.syncs());
    writer.close();
    let figures = format!(
        "{} told after {} (bound 3 H), live again {} after the mend, converged after {converged:.1?}",
        told.reason,
        stage.in_hellos(noticed),
        stage.in_hellos(crate::stage::duration(back - mended)),
    );
    stage.verdict(quiet, vec![far, near], figures);
}

#[test]
fn cut_both_ways() {
    play("network cut both ways", Load::Light, |stage| {
        cut(stage, BOTH_WAYS);
    });
}

#[test]
fn cut_to_the_subscriber() {
    play("network cut to the subscriber", Load::Light, |stage| {
        cut(stage, &[Way::ToSubscriber]);
    });
}

/// The subscriber receives everything, but its questions do not arrive.
#[test]
fn cut_to_the_publisher() {
    play("network cut to the publisher", Load::Light, |stage| {
        cut(stage, &[Way::ToPublisher]);
    });
}

#[test]
fn doubled_delayed_reordered() {
    play("messages doubled, delayed, reordered", Load::Light, |stage| {
        let count = stage.either(1_500, 60_000);
        // The proxy counts single updates.
        let service = stage.service(crate::common::free_port(), &["--join-frames", "never"]);
        let proxy = Proxy::to(&service.address);
        let mut random = Random::from_seed(stage.random.next());
        let delay = stage.hello() / 4;
        let mut left = count;
        proxy.judge(move |message| {
            if !is_update(message) {
                return Fate::Pass;
            }
            left -= 1;
            if count - left < 50 {
                // Before the first update, overtaking cannot be noticed.
                return Fate::Pass;
            }
            match random.below(100) {
                // The last update must not wait for another one.
                _ if left < 10 => Fate::Pass,
                0..5 => Fate::Twice,
                5..10 => Fate::Behind,
                10 if random.below(5) == 0 => Fate::Late(delay.mul_f64(random.below(100) as f64 / 100.0)),
                _ => Fate::Pass,
            }
        });
        let mut program = stage.program(stage.program_spec("p", &[proxy.address()], TOPICS));
        let socket = stage.socket();
        let spec = stage.writer_spec("a", &socket, TOPICS);
        let mut writer = stage.writer(spec);
        writer.send(count, 1_000);
        program.await_delivered(count);
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        writer.close();
        let syncs = program.syncs();
        assert!(syncs.len() <= 2 * TOPICS.len(), "{syncs:?}");
        let duplicates = program.report().duplicates;
        assert!(duplicates > 0);
        let figures = format!("{duplicates} duplicates dropped, converged after {converged:.1?}");
        stage.verdict(quiet, vec![program], figures);
    });
}

#[test]
fn a_byte_at_a_time() {
    play("a byte at a time", Load::Light, |stage| {
        let count = stage.either(200, 5_000);
        let spec = stage.writer_spec("a", "tcp://127.0.0.1:0", TOPICS);
        let mut writer = stage.writer(spec);
        let proxy = Proxy::to(&writer.address);
        proxy.dribble(true);
        let mut program = stage.program(stage.program_spec("p", &[proxy.address()], TOPICS));
        writer.send(count, 200);
        program.await_delivered(count);
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        writer.close();
        // The goodbye comes one byte at a time too.
        pass(stage.hellos(4.0));
        assert_eq!(program.syncs().len(), 1, "{:?}", program.syncs());
        stage.verdict(quiet, vec![program], format!("converged after {converged:.1?}"));
    });
}
