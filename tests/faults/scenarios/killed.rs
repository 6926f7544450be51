//! Processes that are killed, and come back.

use std::time::Duration;

use crate::history::now;
use crate::rig::free_port;
use crate::stage::{Load, later, pass, play};

const TOPICS: &[&str] = &["D", "tenant-1", "tenant-2"];

/// What a machine may add to the time that a call is allowed to take.
const SCHEDULING: Duration = Duration::from_millis(100);

#[test]
fn service_killed_under_load() {
    play("service killed under load", Load::Light, |stage| {
        let port = free_port();
        let service = stage.service(port, &[]);
        let programs = [("all", TOPICS), ("some", &TOPICS[1..2])];
        let mut programs =
            programs.map(|(name, topics)| stage.program(stage.program_spec(name, &[&service.address], topics)));
        let socket = stage.socket();
        let mut writers = ["a", "b", "c"].map(|name| {
            let spec = stage.writer_spec(name, &socket, TOPICS);
            stage.writer(spec)
        });
        for writer in &mut writers {
            writer.begin(300);
        }
        pass(stage.either(Duration::from_millis(700), Duration::from_secs(5)));
        let killed = now();
        drop(service);
        let lost = programs
            .each_mut()
            .map(|program| program.await_sync(killed, |_| true).0);
        pass(stage.either(Duration::from_secs(1), Duration::from_secs(5)));
        let back = now();
        let _service = stage.service(port, &[]);
        let heard = programs.each_mut().map(|program| {
            program.wait_live();
            program.await_sync(back, |_| true).0
        });
        pass(stage.either(Duration::from_millis(700), Duration::from_secs(5)));
        let mut refused = 0;
        for writer in &mut writers {
            refused += writer.stop().refused;
            writer.repair();
        }
        let quiet = now();
        let [all, some] = &mut programs;
        let converged = stage.converge(&mut [all, some]);
        writers.map(|writer| writer.close());
        assert!(refused > 0, "the service was not missed");
        let longest = stage.judge(quiet).1.longest_call;
        let allowed = later(0, Duration::from_millis(500) + SCHEDULING);
        assert!(longest <= allowed, "a publish call took {longest} µs");
        let lost = stage.in_hellos(lost.into_iter().max().unwrap());
        let heard = stage.in_hellos(heard.into_iter().max().unwrap());
        let figures =
            format!("loss told after {lost}, return after {heard}, converged after {converged:.1?}, refused {refused}");
        stage.verdict(quiet, programs.into(), figures);
    });
}

#[test]
fn subscriber_killed() {
    play("subscriber killed", Load::Light, |stage| {
        let service = stage.service(free_port(), &[]);
        let socket = stage.socket();
        let spec = stage.writer_spec("a", &socket, TOPICS);
        let mut writer = stage.writer(spec);
        let spec = stage.program_spec("first", &[&service.address], TOPICS);
        let mut first = stage.program(spec.clone());
        writer.send(300, 1000);
        stage.converge(&mut [&mut first]);
        writer.begin(300);
        pass(stage.either(Duration::from_millis(300), Duration::from_secs(3)));
        let path = first.path.clone();
        first.kill();
        // Rows are deleted meanwhile.
        pass(stage.either(Duration::from_secs(1), Duration::from_secs(5)));
        let restarted = now();
        let mut second = stage.program(crate::program::ProgramSpec {
            name: "second".into(),
            after: Some(path),
            ..spec
        });
        let heard = second.await_sync(restarted, |_| true).0;
        pass(stage.either(Duration::from_millis(300), Duration::from_secs(3)));
        writer.stop();
        let quiet = now();
        let converged = stage.converge(&mut [&mut second]);
        let figures = format!("back after {heard:.1?}, converged after {converged:.1?}");
        stage.verdict(quiet, vec![second], figures);
    });
}
