//! Single messages that are lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};

use crate::cast::{Program, Writer};
use crate::checker::Violation;
use crate::common::{free_port, pass};
use crate::history::{Time, now};
use crate::proxy::{Fate, Message, Proxy};
use crate::scenarios::{fields, is_update};
use crate::stage::{Load, Stage, play};

const TOPIC: &str = "tenant-1";

/// A program behind a proxy that loses the messages for which `is_lost` holds, and the receiver of their times.
fn lossy(address: &str, mut is_lost: impl FnMut(&Message) -> bool + Send + 'static) -> (Proxy, Receiver<Time>) {
    let (sender, losses) = unbounded();
    let proxy = Proxy::to(address);
    proxy.judge(move |message| {
        if !is_update(message) || !is_lost(message) {
            return Fate::Pass;
        }
        sender.send(now()).unwrap();
        Fate::Drop
    });
    (proxy, losses)
}

const BURST: u64 = 100;

/// Loses the last update of each burst. Returns how long it took each time until that was reported.
fn lose_last(stage: &Stage, writer: &mut Writer, program: &mut Program, losses: &Receiver<Time>) -> Vec<Duration> {
    let rounds = stage.either(4, 20);
    let told = (0..rounds).map(|_| {
        writer.send(BURST, 5_000);
        let lost = losses.recv_timeout(stage.bound()).unwrap();
        let (told, sync) = program.await_sync(lost, |_| true);
        assert_eq!((&*sync.reason, sync.topics), ("gap", Some(vec![TOPIC.into()])));
        told
    });
    told.collect()
}

fn last_of_a_burst(stage: &mut Stage, address: &str, mut writer: Writer) {
    let (proxy, losses) = lossy(address, |message| {
        fields(message)["seq"].as_u64().unwrap().is_multiple_of(BURST)
    });
    let mut program = stage.program(stage.program_spec("p", &[proxy.address()], &[TOPIC]));
    let told = lose_last(stage, &mut writer, &mut program, &losses);
    let quiet = now();
    let converged = stage.converge(&mut [&mut program]);
    let worst = *told.iter().max().unwrap();
    assert!(worst <= stage.hellos(2.0), "told after {worst:?}");
    assert_eq!(program.syncs().len(), 1 + told.len(), "{:?}", program.syncs());
    writer.close();
    let worst = stage.in_hellos(worst);
    let figures = format!("told after {worst} at worst (bound 2 H), converged after {converged:.1?}");
    stage.verdict(quiet, vec![program], figures);
}

#[test]
fn the_last_of_a_burst() {
    play("last update of a burst lost", Load::Light, |stage| {
        let spec = stage.writer_spec("a", "tcp://127.0.0.1:0", &[TOPIC]);
        let writer = stage.writer(spec);
        let address = writer.address.clone();
        last_of_a_burst(stage, &address, writer);
    });
}

#[test]
fn the_last_of_a_burst_behind_the_service() {
    play(
        "last update of a burst lost, behind the service",
        Load::Light,
        |stage| {
            // The proxy loses single updates.
            let service = stage.service(free_port(), &["--join-frames", "never"]);
            let socket = stage.socket();
            let spec = stage.writer_spec("a", &socket, &[TOPIC]);
            let writer = stage.writer(spec);
            last_of_a_burst(stage, &service.address, writer);
        },
    );
}

/// The window between a topic becoming live and the first number heard of a writer that has sent before.
#[test]
fn the_first_after_live() {
    play("first update after live lost", Load::Light, |stage| {
        let service = stage.service(free_port(), &["--join-frames", "never"]);
        let socket = stage.socket();
        let mut worst = Duration::ZERO;
        let mut programs = Vec::new();
        let mut quiet = 0;
        for round in 0..stage.either(4, 20) {
            let spec = stage.writer_spec(&format!("a{round}"), &socket, &[TOPIC]);
            let mut writer = stage.writer(spec);
            writer.send(50, 10_000);
            let mut left = 1;
            let (proxy, losses) = lossy(&service.address, move |_| {
                left -= 1;
                left == 0
            });
            let begun = now();
            let mut program = stage.program(stage.program_spec(&format!("p{round}"), &[proxy.address()], &[TOPIC]));
            program.await_sync(begun, |sync| sync.reason == "connected");
            // In every other round only silence follows the lost update.
            writer.send(1 + round % 2, 10_000);
            let lost = losses.recv_timeout(stage.bound()).unwrap();
            let (told, sync) = program.await_sync(lost, |_| true);
            assert!(["unproven", "gap"].contains(&&*sync.reason), "{sync:?}");
            assert_eq!(sync.topics, Some(vec![TOPIC.into()]));
            worst = worst.max(told);
            quiet = now();
            stage.converge(&mut [&mut program]);
            programs.push((program, proxy));
            writer.close();
        }
        assert!(worst <= stage.hellos(2.0), "told after {worst:?}");
        let worst = stage.in_hellos(worst);
        // The proxies are dropped after the programs.
        let (mut programs, proxies): (Vec<_>, Vec<_>) = programs.into_iter().unzip();
        let syncs = programs.iter_mut().map(|program| program.syncs().len()).max().unwrap();
        let figures = format!("told after {worst} at worst (bound 2 H), at most {syncs} syncs a program");
        stage.verdict(quiet, programs, figures);
        drop(proxies);
    });
}

/// A subscriber that stalls while its publisher's queue overflows misses updates and hellos, but gets answers to its
/// questions. Nothing more is sent, so only the numbers of the hellos show the loss.
#[test]
fn every_update_and_hello_for_ten_periods() {
    play("updates and hellos dropped for 10 H", Load::Light, |stage| {
        let spec = stage.writer_spec("a", "tcp://127.0.0.1:0", &[TOPIC]);
        let mut writer = stage.writer(spec);
        let dropping = Arc::new(AtomicBool::new(false));
        let (sender, passed) = unbounded();
        let proxy = Proxy::to(&writer.address);
        let is_dropping = Arc::clone(&dropping);
        proxy.judge(move |message| {
            let is_hello = message
                .frames
                .first()
                .is_some_and(|topic| topic.ends_with(b"tablecast/hello"));
            if is_dropping.load(Ordering::SeqCst) && (is_hello || is_update(message)) {
                return Fate::Drop;
            }
            if is_hello {
                sender.send(now()).unwrap_or(());
            }
            Fate::Pass
        });
        let mut program = stage.program(stage.program_spec("p", &[proxy.address()], &[TOPIC]));
        writer.send(BURST, 5_000);
        program.await_delivered(BURST);
        dropping.store(true, Ordering::SeqCst);
        writer.send(BURST, 5_000);
        pass(stage.hellos(10.0));
        while passed.try_recv().is_ok() {}
        dropping.store(false, Ordering::SeqCst);
        let first = passed.recv_timeout(stage.bound()).unwrap();
        let (told, sync) = program.await_sync(first, |_| true);
        assert_eq!((&*sync.reason, sync.topics), ("hellos-missed", None));
        assert!(told <= stage.hellos(3.0), "told after {told:?}");
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        writer.close();
        let told = stage.in_hellos(told);
        let figures = format!("told after {told} (bound 3 H), converged after {converged:.1?}");
        stage.verdict(quiet, vec![program], figures);
    });
}

/// A checker that never fails is worth nothing: the same losses, without the sequence check.
#[test]
fn without_the_sequence_check_the_checker_fails() {
    play("the sequence check is off", Load::Light, |stage| {
        let mut spec = stage.writer_spec("a", "tcp://127.0.0.1:0", &[TOPIC]);
        spec.rows = 1;
        let mut writer = stage.writer(spec);
        let proxy = Proxy::to(&writer.address);
        proxy.judge(|message| match fields(message)["seq"].as_u64() {
            Some(20) => Fate::Twice,
            Some(40) => Fate::Behind,
            Some(BURST) => Fate::Drop,
            _ => Fate::Pass,
        });
        let mut spec = stage.program_spec("p", &[proxy.address()], &[TOPIC]);
        spec.continuity = false;
        let mut program = stage.program(spec);
        writer.send(BURST, 5_000);
        // All but the last, and one of them twice.
        program.await_delivered(BURST);
        let quiet = now();
        // A replica needs no sequence check.
        stage.converge(&mut [&mut program]);
        program.end();
        writer.close();
        let (violations, figures) = stage.judge(quiet);
        let kinds: BTreeSet<_> = violations.iter().map(Violation::promise).collect();
        assert_eq!(kinds, BTreeSet::from(["C1", "C2", "C3"]), "{violations:?}");
        assert_eq!(violations.len(), 3, "{violations:?}");
        stage.say(format!("as it should, the checker finds {violations:?}; {figures}"));
    });
}
