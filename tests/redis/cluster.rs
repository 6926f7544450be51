//! A cluster that loses nodes, promotes replicas, and excludes nodes.

use std::time::{Duration, Instant};

use tablecast::config::Secret;
use tablecast::{Publisher, PublisherOptions, SubscriberOptions};

use crate::common::{eventually, within};
use crate::rig::{LONG, send, update};
use crate::servers::Cluster;
use crate::{SECOND, driver, hasty, options, publisher, subscriber, syncs, told, told_with, wary, with};

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster that does not replace a node that a busy machine holds up.
pub(crate) fn calm() -> Cluster {
    let cluster = Cluster::start();
    for node in &cluster.nodes {
        let () = node.ask(&["CONFIG", "SET", "cluster-node-timeout", "5000"]);
    }
    cluster
}

/// The node that the only subscriber is at.
fn place(cluster: &Cluster) -> usize {
    let mut places = Vec::new();
    eventually(LONG, || {
        places = cluster.subscribed("D");
        !places.is_empty()
    });
    places[0]
}

/// Sixty of them, each given one address: ten at each node.
#[test]
fn connections_are_scattered_over_the_nodes() {
    within(LIMIT, || {
        let cluster = calm();
        let driver = driver(&cluster.address());
        let rigs: Vec<_> = (0..60)
            .map(|_| {
                let rig = subscriber(&driver);
                rig.listen(&["D"], &cluster.address());
                rig
            })
            .collect();
        let subscribers = cluster.spread("D");
        let publishers: Vec<_> = (0..12).map(|_| publisher(&driver)).collect();
        for (number, publisher) in publishers.iter().enumerate() {
            send(publisher, "D", &number.to_string());
        }
        println!("60 subscribers: {subscribers:?}");
        assert_eq!(subscribers, [10; 6]);
        // A node may not have noticed yet that a connection was closed.
        eventually(LONG, || {
            let clients = cluster.nodes.iter().map(|node| node.clients() as i64);
            clients.zip(&subscribers).map(|(all, some)| all - some).eq([2; 6])
        });
        // Each receives from each, at any node.
        for rig in &rigs {
            let mut keys: Vec<usize> = (0..12).map(|_| rig.next_key().parse().unwrap()).collect();
            keys.sort_unstable();
            assert!(keys.into_iter().eq(0..12));
        }
        // The same for processes that start alone: each begins at a random node.
        drop(rigs);
        let rigs: Vec<_> = (0..60)
            .map(|_| {
                let driver = crate::driver(&cluster.address());
                let rig = subscriber(&driver);
                rig.listen(&["E"], &cluster.address());
                rig
            })
            .collect();
        let subscribers = cluster.spread("E");
        println!("60 processes with one subscriber each: {subscribers:?}");
        assert_eq!(subscribers.iter().sum::<i64>(), 60);
        // A fair choice leaves a node out once in ten thousand times, and practically never three of them.
        assert!(subscribers.iter().filter(|count| **count > 0).count() >= 4);
        drop(rigs);
    });
}

/// Every subscriber gets an event, at any node: what only the old master had is lost.
#[test]
fn a_master_is_killed() {
    within(LIMIT, || {
        let mut cluster = Cluster::start();
        let address = cluster.addresses();
        // More patient than the cluster: during the election, ends at other nodes need not move.
        let driver = driver(&address);
        let names: Vec<_> = (0..500).map(|number| format!("tenant{number}")).collect();
        let topics: Vec<_> = names.iter().map(String::as_str).collect();
        let rigs: Vec<_> = (0..6).map(|_| told(&driver).0).collect();
        for rig in &rigs {
            rig.listen(&topics, &address);
            syncs(rig, &["connected"]);
        }
        assert_eq!(cluster.spread("tenant0"), [1; 6]);
        // What a busy machine merely confirms late is not sent again.
        let publishers: Vec<_> = (0..6).map(|_| publisher(&driver)).collect();
        for publisher in &publishers {
            send(publisher, "tenant0", "before");
        }
        for rig in &rigs {
            for _ in 0..6 {
                assert_eq!(rig.next_key(), "before");
            }
        }
        let victim = cluster.masters()[0];
        let heir = cluster.replica_of(victim);
        let start = Instant::now();
        cluster.nodes[victim].kill();
        eventually(LONG, || cluster.masters().contains(&heir));
        let promoted = start.elapsed();
        for rig in &rigs {
            // The end at the dead node loses it and finds another; the others lose nothing, but get an event as well.
            // So does an end that moved to a node before its promotion.
            eventually(LONG, || {
                let told: Vec<_> = rig.syncs.try_iter().map(|sync| sync.as_str()).collect();
                told.last() == Some(&"reconnected") && rig.subscriber.wait_live(LONG).is_ok()
            });
        }
        println!(
            "promoted after {promoted:?}, all {} told after {:?}",
            rigs.len(),
            start.elapsed()
        );
        cluster.await_ok();
        for rig in &rigs {
            rig.subscriber.wait_live(LONG).unwrap();
        }
        for publisher in &publishers {
            for name in &names {
                eventually(LONG, || {
                    publisher
                        .send_event(&update(name).topic(crate::rig::topic(name)))
                        .is_ok()
                });
            }
        }
        for rig in &rigs {
            let mut came: Vec<_> = (0..6 * names.len()).map(|_| rig.next_key()).collect();
            let mut sent: Vec<_> = (0..6).flat_map(|_| names.iter().cloned()).collect();
            came.sort_unstable();
            sent.sort_unstable();
            assert!(came == sent);
        }
        eventually(LONG, || cluster.subscribed("tenant499").len() == 5);
    });
}

/// On command, with all nodes alive: no connection is lost, but data may be.
#[test]
fn a_replica_is_promoted_by_order() {
    within(LIMIT, || {
        let cluster = calm();
        let driver = driver(&cluster.address());
        let rigs: Vec<_> = (0..6).map(|_| subscriber(&driver)).collect();
        for rig in &rigs {
            rig.listen(&["D"], &cluster.address());
            syncs(rig, &["connected"]);
        }
        let before = cluster.spread("D");
        cluster.hand_over(cluster.masters()[0]);
        for rig in &rigs {
            syncs(rig, &["address-lost", "reconnected"]);
        }
        assert_eq!(cluster.spread("D"), before);
        let publisher = publisher(&driver);
        send(&publisher, "D", "after");
        for rig in &rigs {
            assert_eq!(rig.next_key(), "after");
            assert!(rig.syncs.is_empty());
        }
    });
}

#[test]
fn a_node_hangs() {
    within(LIMIT, || {
        let cluster = Cluster::start();
        let driver = with(&cluster.addresses(), hasty());
        let (rig, _) = told_with(&driver, SubscriberOptions::default());
        rig.listen(&["D"], &cluster.addresses());
        syncs(&rig, &["connected"]);
        let publishers: Vec<_> = (0..6)
            .map(|_| {
                let options = PublisherOptions {
                    send_timeout: 3 * SECOND,
                    ..PublisherOptions::default()
                };
                let publisher = Publisher::new(&*driver, options).unwrap();
                send(&publisher, "D", "before");
                assert_eq!(rig.next_key(), "before");
                publisher
            })
            .collect();
        let hung = place(&cluster);
        let start = Instant::now();
        cluster.nodes[hung].hang();
        assert_eq!(rig.next_sync().as_str(), "address-lost");
        assert_eq!(rig.next_sync().as_str(), "reconnected");
        println!("a subscriber has left a hung node after {:?}", start.elapsed());
        assert!(start.elapsed() < 10 * SECOND);
        rig.subscriber.wait_live(LONG).unwrap();
        assert_ne!(cluster.subscribed("D"), [hung]);
        // One of the publishers was there too: it notices before a send, or reports it; its next message arrives.
        eventually(LONG, || cluster.masters().len() == 3);
        let mut failed = Vec::new();
        for publisher in &publishers {
            eventually(LONG, || match publisher.send_event(&update("after")) {
                Ok(()) => true,
                Err(e) => {
                    failed.push(e.kind());
                    false
                }
            });
        }
        println!("publishers have failed: {failed:?}");
        assert!(failed.len() <= 1, "{failed:?}");
        for _ in &publishers {
            assert_eq!(rig.next_key(), "after");
        }
        cluster.nodes[hung].resume();
        cluster.await_ok();
    });
}

/// The node answers as before, but messages published elsewhere no longer reach it.
#[test]
fn a_node_is_thrown_out() {
    within(LIMIT, || {
        let cluster = calm();
        let driver = with(&cluster.addresses(), wary());
        let (rig, _) = told(&driver);
        rig.listen(&["D"], &cluster.addresses());
        let publishers: Vec<_> = (0..6).map(|_| publisher(&driver)).collect();
        for publisher in &publishers {
            send(publisher, "D", "before");
            assert_eq!(rig.next_key(), "before");
        }
        syncs(&rig, &["connected"]);
        // A replica, since the cluster can do without it.
        let mut at = place(&cluster);
        if cluster.masters().contains(&at) {
            cluster.hand_over(at);
            syncs(&rig, &["address-lost", "reconnected"]);
            at = place(&cluster);
        }
        let id: String = cluster.nodes[at].ask(&["CLUSTER", "MYID"]);
        for (_, node) in cluster.nodes.iter().enumerate().filter(|(index, _)| *index != at) {
            let () = node.ask(&["CLUSTER", "FORGET", &id]);
        }
        let () = cluster.nodes[at].ask(&["CLUSTER", "RESET"]);
        let mut is_back = false;
        eventually(2 * LONG, || {
            if let Some(sync) = rig.syncs.try_iter().last() {
                is_back = sync.as_str() == "reconnected";
            }
            is_back && cluster.subscribed("D") != [at]
        });
        rig.subscriber.wait_live(LONG).unwrap();
        // The publisher that was there notices before it publishes in vain.
        crate::common::pass(2 * crate::BEAT);
        for publisher in &publishers {
            send(publisher, "D", "after");
            assert_eq!(rig.next_key(), "after");
        }
    });
}

#[test]
fn a_user_may_not_ask_for_the_cluster() {
    within(LIMIT, || {
        let cluster = calm();
        for node in &cluster.nodes {
            let () = node.ask(&[
                "ACL",
                "SETUSER",
                "caster",
                "on",
                ">secret",
                "allchannels",
                "-@all",
                "+publish",
                "+subscribe",
                "+ping",
            ]);
        }
        let mut options = options();
        options.user = "caster".into();
        options.password = Secret::new("secret");
        let driver = with(&cluster.addresses(), options);
        let (rig, errors) = told(&driver);
        rig.listen(&["D"], &cluster.addresses());
        let publisher = publisher(&driver);
        for key in ["1", "2", "3"] {
            crate::common::pass(2 * crate::BEAT);
            rig.only(key, || send(&publisher, "D", key));
        }
        syncs(&rig, &["connected"]);
        assert!(errors.is_empty());
    });
}
