//! Processes that are killed and come back.

use std::time::Duration;

use crate::cast::Writer;
use crate::common::{free_port, pass};
use crate::history::{Told, now};
use crate::stage::{Backend, Load, SEND_TIMEOUT, duration, play, play_on, since};

const TOPICS: &[&str] = &["D", "tenant-1", "tenant-2"];

/// Time that scheduling may add to the time limit of a call. A call without a limit would take as long as the outage.
const SCHEDULING: Duration = Duration::from_millis(400);

on_every_store!(
    service_killed_under_load,
    subscriber_killed,
    writer_killed_between_store_and_publish
);

fn service_killed_under_load(backend: Backend) {
    play_on(backend, "service killed under load", Load::Light, |stage| {
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
        writers.into_iter().for_each(Writer::close);
        assert!(refused > 0, "the service was not missed");
        let lost = stage.in_hellos(lost.into_iter().max().unwrap());
        let heard = stage.in_hellos(heard.into_iter().max().unwrap());
        let figures =
            format!("loss told after {lost}, return after {heard}, converged after {converged:.1?}, refused {refused}");
        let longest = stage.verdict(quiet, programs.into(), figures).longest_call;
        let allowed = SEND_TIMEOUT + SCHEDULING;
        assert!(duration(longest) <= allowed, "a publish call took {longest} µs");
    });
}

fn subscriber_killed(backend: Backend) {
    play_on(backend, "subscriber killed", Load::Light, |stage| {
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
        first.kill();
        // Rows are deleted meanwhile.
        pass(stage.either(Duration::from_secs(1), Duration::from_secs(5)));
        let restarted = now();
        let mut second = stage.program(crate::program::ProgramSpec {
            name: "second".into(),
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

/// The row is stored, and its update was never sent.
fn writer_killed_between_store_and_publish(backend: Backend) {
    play_on(
        backend,
        "writer killed between store and publish",
        Load::Light,
        |stage| {
            let service = stage.service(free_port(), &[]);
            let socket = stage.socket();
            let mut direct = stage.writer_spec("direct", "tcp://127.0.0.1:0", TOPICS);
            direct.id = Some("direct".into());
            let mut direct = stage.writer(direct);
            let addresses = [&*service.address, &direct.address];
            let mut programs = ["p", "q"].map(|name| stage.program(stage.program_spec(name, &addresses, TOPICS)));
            let mut living = stage.writer_spec("living", &socket, TOPICS);
            living.id = Some("living".into());
            let mut living = stage.writer(living);
            let mut local = stage.writer_spec("local", &socket, TOPICS);
            local.id = Some("local".into());
            let mut local = stage.writer(local);
            living.begin(100);
            for writer in [&mut local, &mut direct] {
                writer.send(100, 1_000);
                writer.store_only();
            }
            pass(stage.hello().mul_f64(stage.random.below(100) as f64 / 100.0));
            // A writer that has sent little so far.
            let mut young = stage.writer_spec("young", &socket, TOPICS);
            young.id = Some("young".into());
            let mut young = stage.writer(young);
            // It may take longer than its timeout to find the service.
            while young.send(1, 1).sent == 0 {}
            young.store_only();
            let killed = now();
            // Nothing could be reported of a writer whose first message has not left it, or that is already silent.
            for program in &mut programs {
                program.await_heard(&["young", "local"]);
            }
            young.kill();
            local.kill();
            let silent = ["young", "local"].map(|name| {
                programs.each_mut().map(|program| {
                    let is_it = |sync: &Told| sync.reason == "silence" && sync.publishers.contains(&name.into());
                    program.await_sync(killed, is_it).0
                })
            });
            let killed = now();
            direct.kill();
            let lost = programs
                .each_mut()
                .map(|program| program.await_sync(killed, |_| true).0);
            living.stop();
            let quiet = now();
            let [p, q] = &mut programs;
            let converged = stage.converge(&mut [p, q]);
            let silent = silent.into_iter().flatten().max().unwrap();
            assert!(silent <= stage.hellos(3.0), "noticed after {silent:?}");
            living.close();
            let silent = stage.in_hellos(silent);
            let lost = stage.in_hellos(lost.into_iter().max().unwrap());
            let figures = format!(
                "noticed after {silent} behind the service, {lost} without (bound 3 H), converged after {converged:.1?}"
            );
            stage.verdict(quiet, programs.into(), figures);
        },
    );
}

const MANY: usize = 5_000;

#[test]
fn five_thousand_topics() {
    play("5,000 topics, publisher restarted", Load::Heavy, |stage| {
        let address = format!("tcp://127.0.0.1:{}", free_port());
        let topics: Vec<_> = (0..MANY).map(|number| format!("topic-{number}")).collect();
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        let mut spec = stage.writer_spec("a", &address, &topics);
        spec.rows = 1;
        let mut writer = stage.writer(spec.clone());
        let mut program = stage.program(stage.program_spec("p", &[&address], &topics));
        writer.send(MANY as u64, 5_000);
        program.await_delivered(MANY as u64);
        assert_eq!(program.live_topics(), MANY);
        let killed = now();
        writer.kill();
        let lost = program.await_sync(killed, |_| true).0;
        pass(stage.either(Duration::from_millis(500), Duration::from_secs(5)));
        assert_eq!(program.live_topics(), 0);
        spec.seed += 1;
        let mut writer = stage.writer(spec);
        let back = now();
        program.wait_live();
        let live = since(back);
        assert_eq!(program.live_topics(), MANY);
        assert!(live <= stage.bound(), "live after {live:?}");
        writer.send(MANY as u64, 5_000);
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        writer.close();
        let bound = stage.bound();
        let figures = format!(
            "loss told after {}, all live {live:.1?} after the restart (bound {bound:?}), converged after {converged:.1?}",
            stage.in_hellos(lost),
        );
        stage.verdict(quiet, vec![program], figures);
    });
}
