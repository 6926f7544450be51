//! Changes that only replicas find: updates that say too little, no updates at all, and stores that fail over.

use std::time::Duration;

use crate::cast::Writer;
use crate::common::{free_port, pass};
use crate::history::now;
use crate::proxy::{Fate, Proxy};
use crate::random::Random;
use crate::scenarios::is_update;
use crate::stage::{Backend, Load, play_on};

const TOPICS: &[&str] = &["D", "tenant-1"];

on_every_store!(updates_without_versions, a_writer_that_never_publishes);

/// Updates like Dragonflow's, some of which are lost, beside those of a writer that states versions.
fn updates_without_versions(backend: Backend) {
    play_on(backend, "updates without versions", Load::Light, |stage| {
        let service = stage.service(free_port(), &[]);
        let mut random = Random::from_seed(stage.random.next());
        let proxy = Proxy::to(&service.address);
        proxy.judge(move |message| match is_update(message) && random.below(20) == 0 {
            true => Fate::Drop,
            false => Fate::Pass,
        });
        let mut program = stage.program(stage.program_spec("p", &[proxy.address()], TOPICS));
        let socket = stage.socket();
        let mut writers = [("a", false), ("b", true)].map(|(name, versioned)| {
            let mut spec = stage.writer_spec(name, &socket, TOPICS);
            spec.versioned = versioned;
            let mut writer = stage.writer(spec);
            writer.begin(300);
            writer
        });
        pass(stage.either(Duration::from_secs(2), Duration::from_secs(20)));
        writers.iter_mut().for_each(Writer::halt);
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        writers.into_iter().for_each(Writer::close);
        // A later update of the row may make up for a loss before that is reported, which takes at most a second.
        pass(Duration::from_millis(1_200));
        let figures = stage.verdict(quiet, vec![program], format!("converged after {converged:.1?}"));
        assert!(figures.declared > 0, "nothing was lost: the proxy did nothing");
    });
}

/// Rows stored without an update are found by the next check, beside a writer that publishes, and when all is quiet.
fn a_writer_that_never_publishes(backend: Backend) {
    play_on(backend, "a writer that never publishes", Load::Light, |stage| {
        let service = stage.service(free_port(), &[]);
        let mut program = stage.program(stage.program_spec("p", &[&service.address], TOPICS));
        let socket = stage.socket();
        let mut writers = [("silent", false), ("heard", true)].map(|(name, publishes)| {
            let mut spec = stage.writer_spec(name, &socket, TOPICS);
            spec.publishes = publishes;
            let mut writer = stage.writer(spec);
            writer.begin(200);
            writer
        });
        pass(stage.either(Duration::from_secs(1), Duration::from_secs(20)));
        writers.iter_mut().for_each(Writer::halt);
        stage.converge(&mut [&mut program]);
        let [silent, _] = &mut writers;
        silent.send(50, 1_000);
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        writers.into_iter().for_each(Writer::close);
        assert_eq!(program.syncs().len(), 1, "{:?}", program.syncs());
        let converged = format!("converged after {converged:.1?}");
        stage.verdict(quiet, vec![program], converged);
    });
}

/// Masters hand over to their replicas, and one is killed, while rows are written.
#[cfg(feature = "redis")]
#[test]
fn masters_change() {
    play_on(Backend::Cluster, "masters change", Load::Half, |stage| {
        let service = stage.service(free_port(), &[]);
        let mut program = stage.program(stage.program_spec("p", &[&service.address], TOPICS));
        let socket = stage.socket();
        let spec = stage.writer_spec("a", &socket, TOPICS);
        let mut writer = stage.writer(spec);
        writer.begin(200);
        pass(Duration::from_millis(500));
        let cluster = stage.cluster();
        for master in cluster.masters() {
            cluster.hand_over(master);
        }
        // A killed master may lose its last writes, so there are none.
        writer.halt();
        let chance = stage.random.below(3);
        let cluster = stage.cluster();
        let master = cluster.masters()[chance];
        let _: i64 = cluster.nodes[master].ask(&["WAIT", "1", "1000"]);
        cluster.nodes[master].kill();
        writer.begin(200);
        pass(stage.either(Duration::from_secs(4), Duration::from_secs(10)));
        writer.halt();
        writer.repair();
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        writer.close();
        stage.verdict(quiet, vec![program], format!("converged after {converged:.1?}"));
    });
}
