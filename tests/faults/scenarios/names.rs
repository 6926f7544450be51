//! Confusion of identities: two publishers with one id, clocks that differ, and names that look like something else.

use std::time::Duration;

use crate::cast::Writer;
use crate::common::{free_port, pass};
use crate::history::now;
use crate::process;
use crate::proxy::{Fate, Proxy};
use crate::scenarios::{fields, is_update};
use crate::stage::{Load, play};
use crate::writer::Clock;

const TOPICS: &[&str] = &["D", "tenant-1"];

#[test]
fn two_publishers_with_one_id() {
    play("two publishers with one id", Load::Light, |stage| {
        let service = stage.service(free_port(), &[]);
        let socket = stage.socket();
        let proxy = Proxy::to(&service.address);
        let mut program = stage.program(stage.program_spec("p", &[proxy.address()], TOPICS));
        let mut twins = ["first", "second"].map(|name| {
            let mut spec = stage.writer_spec(name, &socket, TOPICS);
            spec.id = Some("twin".into());
            let mut writer = stage.writer(spec);
            writer.begin(200);
            writer
        });
        let met = now();
        let mut lost = 1;
        // Both are followed: losses of either are noticed.
        pass(stage.either(Duration::from_secs(2), Duration::from_secs(5)));
        let (sender, losses) = crossbeam_channel::bounded(1);
        proxy.judge(move |message| {
            if lost > 0 && is_update(message) && fields(message)["key"].as_str().unwrap().starts_with("first") {
                lost -= 1;
                sender.send(now()).unwrap();
                return Fate::Drop;
            }
            Fate::Pass
        });
        let lost = losses.recv_timeout(stage.bound()).unwrap();
        let (told, sync) = program.await_sync(lost, |_| true);
        assert_eq!((&*sync.reason, &*sync.publishers), ("gap", &["twin".to_owned()][..]));
        twins.iter_mut().for_each(Writer::halt);
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        assert!(told <= stage.hellos(2.0), "told after {told:?}");
        let report = program.report();
        assert!(report.clashes > 0 && report.errors > 0, "{report:?}");
        let syncs = program.syncs().into_iter().filter(|(at, _)| *at >= met);
        let syncs: Vec<_> = syncs.map(|(_, told)| told.reason).collect();
        twins.into_iter().for_each(Writer::close);
        let figures = format!(
            "reported {} times, told {syncs:?}, a loss told after {} (bound 2 H), converged after {converged:.1?}",
            report.clashes,
            stage.in_hellos(told),
        );
        stage.verdict(quiet, vec![program], figures);
    });
}

#[test]
fn two_services_on_one_path() {
    play("two services on one path", Load::Light, |stage| {
        let service = stage.service(free_port(), &[]);
        let mut program = stage.program(stage.program_spec("p", &[&service.address], TOPICS));
        let socket = stage.socket();
        let spec = stage.writer_spec("a", &socket, TOPICS);
        let mut writer = stage.writer(spec);
        writer.begin(2_000);
        let attempts = stage.either(30, 300);
        for _ in 0..attempts {
            let end = process::run(stage.service_command(free_port(), &[]));
            assert_eq!(end.code, Some(1), "{end:?}");
            assert!(end.stderr.contains("address in use"), "{end:?}");
        }
        let sent = writer.stop();
        assert_eq!(sent.refused, 0);
        program.await_delivered(sent.sent);
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        assert_eq!(program.syncs().len(), 1, "{:?}", program.syncs());
        writer.close();
        let figures = format!("{attempts} refused, converged after {converged:.1?}");
        stage.verdict(quiet, vec![program], figures);
    });
}

/// Liveness is judged by what is received, order by numbers; no clock of another machine counts.
#[test]
fn clocks_an_hour_apart() {
    play("clocks an hour apart, or stepping", Load::Light, |stage| {
        let service = stage.service(free_port(), &[]);
        let socket = stage.socket();
        let mut program = stage.program(stage.program_spec("p", &[&service.address], TOPICS));
        let clocks = [
            ("early", Clock::Off(-3600)),
            ("late", Clock::Off(3600)),
            ("stepping", Clock::Steps),
            ("dying", Clock::Off(7200)),
        ];
        let mut writers = clocks.map(|(name, clock)| {
            let mut spec = stage.writer_spec(name, &socket, TOPICS);
            (spec.clock, spec.id, spec.rows) = (clock, Some(name.into()), 3);
            let mut writer = stage.writer(spec);
            writer.begin(200);
            writer
        });
        pass(stage.hellos(5.0));
        assert_eq!(
            program.syncs().len(),
            1,
            "somebody alive was evicted: {:?}",
            program.syncs()
        );
        let [.., dying] = &mut writers;
        dying.stop();
        let [living @ .., dying] = writers;
        let killed = now();
        dying.kill();
        let (told, sync) = program.await_sync(killed, |_| true);
        assert_eq!(
            (&*sync.reason, &*sync.publishers),
            ("silence", &["dying".to_owned()][..])
        );
        assert!(told <= stage.hellos(3.0), "told after {told:?}");
        pass(stage.hellos(5.0));
        let mut living = living;
        living.iter_mut().for_each(Writer::halt);
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        assert_eq!(
            program.syncs().len(),
            2,
            "somebody alive was evicted: {:?}",
            program.syncs()
        );
        living.into_iter().for_each(Writer::close);
        let told = stage.in_hellos(told);
        let figures = format!("the one killed noticed after {told} (bound 3 H), converged after {converged:.1?}");
        stage.verdict(quiet, vec![program], figures);
    });
}
