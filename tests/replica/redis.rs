//! Replicas over Redis, alone and as a cluster, which is the store and also carries the updates.

#[path = "../common/redis.rs"]
mod servers;

use std::time::Duration;

use tablecast::store::Write;
use tablecast::{Config, ErrorKind, Node};

use crate::common::{eventually, within};
use crate::told::Told;
use crate::{LONG, held, stored, topic};
use servers::{Cluster, Server};

const TOPICS: [&str; 2] = ["a", "b"];

fn node(host: &str, workers: usize) -> Node {
    let mut config = Config::default();
    config.nb_db_class = "redis".into();
    config.pub_sub_driver = "redis".into();
    config.pub_sub_use_multiproc = false;
    config.remote_db_hosts = vec![host.into()];
    config.dispatcher_workers = workers;
    config.topics = TOPICS.map(topic).to_vec();
    config.store_timeout_ms = Duration::from_secs(10);
    Node::open(&config).unwrap()
}

/// Makes a random write; one that cannot be made has no effect.
fn write(node: &Node, chance: &mut fastrand::Rng) {
    let name = TOPICS[chance.usize(0..2)];
    let (topic, key) = (topic(name), format!("{name}{}", chance.u8(0..20)));
    let value = chance.u64(..).to_string();
    let writes = [
        Write::create("t", &key, &value),
        Write::set("t", &key, &value),
        Write::delete("t", &key),
    ];
    let write = writes[chance.usize(0..3)].topic(&topic);
    // Every fifth is not published.
    let written = match chance.u8(0..5) {
        0 => node.store().unwrap().write(&write),
        _ => node.database().unwrap().write(&write, 5),
    };
    if let Err(e) = written {
        assert!(
            [ErrorKind::AlreadyExists, ErrorKind::NotFound].contains(&e.kind()),
            "{e}"
        );
    }
}

/// Writes, and calls `fault` in between.
fn stays_right(host: &str, workers: usize, mut fault: impl FnMut()) {
    let node = node(host, workers);
    let store = node.store().unwrap();
    let replica = node.replica().unwrap();
    let table = replica.raw_table("t").unwrap();
    let (told, _guard) = Told::of(&table);
    replica.wait_synced(LONG).unwrap();
    let mut chance = fastrand::Rng::with_seed(7);
    let is_right = |told: &Told| {
        let wanted = stored(&*store, "t", &TOPICS);
        held(&table) == wanted && told.rows() == wanted
    };
    for _ in 0..3 {
        (0..150).for_each(|_| write(&node, &mut chance));
        replica
            .wait_current(LONG)
            .unwrap_or_else(|e| panic!("{e}: {:?}", replica.stats()));
        eventually(LONG, || is_right(&told));
        fault();
    }
    assert!(store.delete_table("t").unwrap());
    eventually(LONG, || table.is_empty());
    (0..50).for_each(|_| write(&node, &mut chance));
    eventually(LONG, || is_right(&told));
    let stats = replica.stats();
    assert!(stats.applied > 0 && stats.changes > 0, "{stats:?}");
    assert!(replica.verify(LONG).unwrap().is_empty());
}

#[test]
fn over_a_server() {
    within(2 * LONG, || {
        let server = Server::start();
        for workers in [0, 2] {
            stays_right(&server.host(), workers, || ());
        }
    });
}

/// Masters hand over to their replicas in between.
#[test]
fn over_a_cluster() {
    within(4 * LONG, || {
        let cluster = Cluster::start();
        stays_right(&cluster.nodes[0].host(), 2, || {
            for master in cluster.masters() {
                cluster.hand_over(master);
            }
        });
    });
}

/// A server is emptied and filled again, beyond its old versions.
#[test]
fn a_server_that_is_flushed_is_the_truth() {
    within(2 * LONG, || {
        let server = Server::start();
        let node = node(&server.host(), 0);
        let (store, database) = (node.store().unwrap(), node.database().unwrap());
        let replica = node.replica().unwrap();
        let table = replica.raw_table("t").unwrap();
        let fill = |keys: &[&str]| {
            for key in keys {
                database
                    .write(&Write::create("t", key, "x").topic(&topic("a")), 5)
                    .unwrap();
            }
        };
        fill(&["a", "b", "c"]);
        replica.wait_current(LONG).unwrap();
        assert_eq!(table.len(), 3);
        let () = server.ask(&["FLUSHALL"]);
        fill(&["b", "c", "d", "e"]);
        eventually(LONG, || {
            held(&table) == stored(&*store, "t", &TOPICS) && replica.stats().went_back > 0
        });
        assert!(replica.verify(LONG).unwrap().is_empty());
    });
}

/// The server's content is exchanged for one that lacks the last writes and has more others since, as after a failover
/// under load. No version is lower than before.
#[test]
fn a_server_that_lost_writes_and_took_others_is_the_truth() {
    within(2 * LONG, || {
        let (mut server, mut other) = (Server::start(), Server::start());
        let node_of = |server: &Server| node(&server.host(), 0);
        let writer = node_of(&server);
        let (store, database) = (writer.store().unwrap(), writer.database().unwrap());
        let replica = writer.replica().unwrap();
        let table = replica.raw_table("t").unwrap();
        let a = topic("a");
        let file = |server: &Server| {
            let dir: Vec<String> = server.ask(&["CONFIG", "GET", "dir"]);
            std::path::Path::new(&dir[1]).join("dump.rdb")
        };
        let (here, there) = (file(&server), file(&other));
        for key in ["a", "b"] {
            database.write(&Write::create("t", key, "1").topic(&a), 5).unwrap();
        }
        let () = server.ask(&["SAVE"]);
        std::fs::copy(&here, &there).unwrap();
        database.write(&Write::set("t", "a", "lost").topic(&a), 5).unwrap();
        database
            .write(&Write::create("t", "lost", "lost").topic(&a), 5)
            .unwrap();
        replica.wait_current(LONG).unwrap();
        assert_eq!(table.len(), 3);

        other.restart();
        let elsewhere = node_of(&other).store().unwrap();
        for key in ["c", "d", "e"] {
            elsewhere.create("t", key, "other", &a).unwrap();
        }
        let () = other.ask(&["SAVE"]);
        server.kill();
        std::fs::copy(&there, &here).unwrap();
        server.restart();
        let wanted = stored(&*elsewhere, "t", &TOPICS);
        assert_eq!(wanted.len(), 5);
        eventually(LONG, || {
            held(&table) == wanted && stored(&*store, "t", &TOPICS) == wanted
        });
        assert!(replica.verify(LONG).unwrap().is_empty());
    });
}
