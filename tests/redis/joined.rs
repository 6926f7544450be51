//! Joined updates, which only this library's subscribers are sent: other clients come, go and hide, and lose nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tablecast::config::JoinFrames;
use tablecast::drivers::redis::RedisOptions;
use tablecast::transport::Driver;
use tablecast::{Action, DbUpdate, Publisher, PublisherOptions, Topic};

use crate::common::{eventually, within};
use crate::process::{Process, python};
use crate::proxy::{Fault, Proxy};
use crate::rig::{LONG, Rig, send, topic};
use crate::servers::Server;
use crate::{SECOND, driver, options, publisher, sending, subscriber, syncs, with};

const LIMIT: Duration = Duration::from_secs(60);

/// Understands one map in a message, and ends with the key `end`.
const OTHER: &str = r#"
import msgpack, redis, sys

port, how = sys.argv[1].split()
channel = redis.Redis(host="127.0.0.1", port=int(port)).pubsub()
(channel.psubscribe if how == "pattern" else channel.subscribe)("tenant*" if how == "pattern" else "tenant1")
assert channel.get_message(timeout=10)["type"].endswith("subscribe")
print("ready", flush=True)
key = None
while key != "end":
    message = channel.get_message(timeout=20)
    key = msgpack.unpackb(message["data"])["key"]
    print(message["channel"].decode(), key, flush=True)
"#;

fn send_batch(publisher: &Publisher, keys: &[String]) {
    let update = |key: &String| DbUpdate::new("row", key.as_str(), Action::Set).value("{}");
    let updates: Vec<_> = keys.iter().map(update).collect();
    publisher.send_batch(&topic("tenant1"), &updates).unwrap();
}

/// A subscriber that listens to `tenant1`, and a publisher.
fn pair(server: &Server, driver: &Arc<dyn Driver>) -> (Rig, Publisher) {
    let rig = subscriber(driver);
    rig.listen(&["tenant1"], &server.address());
    (rig, publisher(driver))
}

/// Sends batches of ten; returns how many messages of updates the subscriber received for each.
fn messages_per_batch(rig: &Rig, publisher: &Publisher, name: &str) -> Vec<u64> {
    let received = || {
        let stats = rig.subscriber.stats();
        stats.received - stats.hellos
    };
    let one = |batch: usize| {
        let before = received();
        let keys: Vec<_> = (0..10).map(|key| format!("{name}/{batch}/{key}")).collect();
        send_batch(publisher, &keys);
        for key in &keys {
            assert_eq!(rig.next_key(), *key);
        }
        received() - before
    };
    (0..4).map(one).collect()
}

fn nothing_else_came(rig: &Rig, publisher: &Publisher) {
    rig.only("last", || send_batch(publisher, &["last".into()]));
    syncs(rig, &["connected"]);
}

#[test]
fn updates_are_joined_until_another_client_comes_and_again_when_it_has_gone() {
    within(LIMIT, || {
        for how in ["channel", "pattern"] {
            let server = Server::start();
            let (rig, publisher) = pair(&server, &driver(&server.address()));
            // The first batch asks.
            assert_eq!(messages_per_batch(&rig, &publisher, "alone"), [10, 1, 1, 1]);

            let clients = server.clients();
            let mut other = Process::start(python(OTHER, &format!("{} {how}", server.port())));
            assert_eq!(other.line(), "ready");
            // The first batch goes to both in its own form, so copies may be counted with the second.
            let messages = messages_per_batch(&rig, &publisher, "together");
            assert_eq!(messages[2..], [10, 10], "{how}");
            for batch in 0..4 {
                for key in 0..10 {
                    assert_eq!(other.line(), format!("tenant1 together/{batch}/{key}"), "{how}");
                }
            }
            send_batch(&publisher, &["end".into()]);
            assert_eq!(rig.next_key(), "end");
            assert_eq!(other.line(), "tenant1 end");
            assert_eq!(other.end().code, Some(0));

            eventually(LONG, || server.clients() == clients);
            assert_eq!(messages_per_batch(&rig, &publisher, "again"), [10, 1, 1, 1]);
            nothing_else_came(&rig, &publisher);
        }
    });
}

/// It is no subscriber of the server that the publisher asks.
#[test]
fn a_client_at_a_replica_is_sent_one_map_a_message() {
    within(LIMIT, || {
        let server = Server::start();
        let (rig, publisher) = pair(&server, &driver(&server.address()));
        assert_eq!(messages_per_batch(&rig, &publisher, "alone"), [10, 1, 1, 1]);

        let replica = Server::with(&["--replicaof", "127.0.0.1", &server.port().to_string()]);
        eventually(LONG, || {
            replica.info("replication", "master_link_status").as_deref() == Some("up")
        });
        let mut other = Process::start(python(OTHER, &format!("{} channel", replica.port())));
        assert_eq!(other.line(), "ready");
        assert_eq!(messages_per_batch(&rig, &publisher, "together")[2..], [10, 10]);
        for batch in 0..4 {
            for key in 0..10 {
                assert_eq!(other.line(), format!("tenant1 together/{batch}/{key}"));
            }
        }
        nothing_else_came(&rig, &publisher);
    });
}

/// A publisher that may not ask does not join, and neither does one beside a subscriber that may not have the second
/// channel. One that may begin no transaction finds out with its first one.
#[test]
fn few_rights_cost_no_update() {
    within(LIMIT, || {
        let server = Server::start();
        for (rights, messages) in [
            (&["&*", "+@all"][..], 1),
            (&["&*", "+@all", "-pubsub"], 10),
            (&["&*", "+@all", "-info"], 10),
            (&["&*", "+@all", "-eval"], 10),
            (&["&*", "+@all", "-evalsha"], 10),
            (&["&*", "+@all", "-multi"], 10),
            (&["&*", "+@all", "-exec"], 10),
            (&["&tenant1", "&\u{10FFFF}tablecast/*", "+@all"], 10),
        ] {
            let words = [&["ACL", "SETUSER", "few", "reset", "on", "nopass", "~*"], rights].concat();
            let () = server.ask(&words);
            let options = RedisOptions {
                user: "few".into(),
                ..options()
            };
            let (rig, publisher) = pair(&server, &with(&server.address(), options));
            assert_eq!(messages_per_batch(&rig, &publisher, "few")[3], messages, "{rights:?}");
            nothing_else_came(&rig, &publisher);
        }
    });
}

/// The server forgets its scripts when it starts again, and on command.
#[test]
fn a_forgotten_script_costs_no_update() {
    within(LIMIT, || {
        let server = Server::start();
        let (rig, publisher) = pair(&server, &driver(&server.address()));
        assert_eq!(messages_per_batch(&rig, &publisher, "before"), [10, 1, 1, 1]);
        let () = server.ask(&["SCRIPT", "FLUSH"]);
        assert_eq!(messages_per_batch(&rig, &publisher, "after")[2..], [1, 1]);
        nothing_else_came(&rig, &publisher);
    });
}

/// Topics are registered and dropped in any order, whether or not the user may have both channels of them, or one.
#[test]
fn topics_come_and_go_with_both_channels() {
    within(LIMIT, || {
        let server = Server::start();
        let joined = |name: &str| format!("\u{10FFFF}joined/{name}");
        let channels = |name: &str| {
            let (_, one, _, two): (String, i64, String, i64) = server.ask(&["PUBSUB", "NUMSUB", name, &joined(name)]);
            (one, two)
        };
        for (rights, of_t2) in [
            (&["&*"][..], (1, 1)),
            (&["&t1", "&t2", "&\u{10FFFF}joined/t1"], (1, 0)),
            (&["&t1", "&t2", "&\u{10FFFF}joined/t2"], (1, 0)),
            (&["&t1", "&\u{10FFFF}joined/t1"], (0, 0)),
        ] {
            let words = [
                "ACL",
                "SETUSER",
                "few",
                "reset",
                "on",
                "nopass",
                "~*",
                "+@all",
                "&\u{10FFFF}tablecast/*",
            ];
            let () = server.ask(&[&words, rights].concat());
            let options = RedisOptions {
                user: "few".into(),
                ..options()
            };
            let rig = subscriber(&with(&server.address(), options));
            rig.listen(&["t1"], &server.address());
            for _ in 0..20 {
                for name in ["t1", "t2", "t1", "t2"] {
                    rig.subscriber.register_topic(&topic(name)).unwrap();
                    rig.subscriber.unregister_topic(&topic(name));
                }
            }
            // What was refused and is not wanted any more keeps no other topic from being in force.
            rig.subscriber.register_topic(&topic("t1")).unwrap();
            rig.subscriber.wait_live(LONG).unwrap();
            assert_eq!(channels("t2"), (0, 0), "{rights:?}");
            if of_t2.0 > 0 {
                rig.subscriber.register_topic(&topic("t2")).unwrap();
                rig.subscriber.unregister_topic(&topic("t1"));
                rig.subscriber.wait_live(LONG).unwrap();
                eventually(LONG, || channels("t1") == (0, 0));
                eventually(LONG, || channels("t2").0 == 1);
                if rights.len() == 1 {
                    assert_eq!(channels("t2"), of_t2);
                }
            }
            drop(rig);
            eventually(LONG, || channels("t1") == (0, 0) && channels("t2") == (0, 0));
        }
    });
}

/// Sends in a row without a pause are a burst, also where each would wait for the server.
#[test]
fn single_updates_are_joined_in_a_burst() {
    within(LIMIT, || {
        let server = Server::start();
        for (join_frames, is_joined) in [
            (JoinFrames::Auto, true),
            (JoinFrames::Never, false),
            (JoinFrames::Always, true),
        ] {
            let options = RedisOptions {
                join_frames,
                heartbeat_timeout: LONG,
                ..RedisOptions::default()
            };
            let driver = with(&server.address(), options);
            let rig = subscriber(&driver);
            rig.listen(&["D"], &server.address());
            let publisher = publisher(&driver);
            for number in 0..500 {
                let update = DbUpdate::new("row", number.to_string(), Action::Set).value("{}");
                publisher.send_event(&update.topic(Topic::ALL)).unwrap();
            }
            for number in 0..500 {
                assert_eq!(rig.next_key(), number.to_string());
            }
            let stats = rig.subscriber.stats();
            let is_less = stats.received - stats.hellos < 500;
            assert_eq!(is_less, is_joined, "{join_frames}: {stats:?}");
        }
    });
}

/// What was accepted has the time limit of a send, though another thread sends it.
#[test]
fn the_end_of_a_burst_waits_for_a_slow_server() {
    within(LIMIT, || {
        let server = Server::start();
        let rig = subscriber(&driver(&server.address()));
        rig.listen(&["D"], &server.address());
        let proxy = Proxy::to(server.port());
        let publisher = publisher(&driver(&proxy.address()));
        for number in 0..1560 {
            if number == 1500 {
                // From now on a round trip takes longer than a try without waiting.
                proxy.set(Fault::Delay(Duration::from_millis(75)));
            }
            send(&publisher, "D", &number.to_string());
        }
        for number in 0..1560 {
            assert_eq!(rig.next_key(), number.to_string());
        }
        let stats = rig.subscriber.stats();
        assert!(stats.received - stats.hellos < 1560, "a burst");
        assert_eq!(publisher.stats().lost, 0);
        syncs(&rig, &["connected"]);
    });
}

/// Each message takes a round trip, so those of many topics together would take longer than a send may.
#[test]
fn a_burst_on_many_topics_fails_no_send() {
    within(LIMIT, || {
        let server = Server::start();
        let topics: Vec<_> = (0..40).map(|number| format!("topic{number}")).collect();
        let names: Vec<_> = topics.iter().map(String::as_str).collect();
        let rig = subscriber(&driver(&server.address()));
        rig.listen(&names, &server.address());
        let proxy = Proxy::to(server.port());
        let options = PublisherOptions {
            send_timeout: 2 * SECOND,
            ..sending()
        };
        let publisher = Publisher::new(&*driver(&proxy.address()), options).unwrap();
        for round in 0..20 {
            if round == 19 {
                proxy.set(Fault::Delay(Duration::from_millis(40)));
            }
            for name in &names {
                send(&publisher, name, &format!("{name}/{round}"));
            }
        }
        let keys: BTreeSet<_> = (0..20 * names.len()).map(|_| rig.next_key()).collect();
        assert_eq!(keys.len(), 20 * names.len());
        assert_eq!(publisher.stats().lost, 0);
    });
}

/// Found out once: not with every burst, which would go out twice and cost the connection.
#[test]
fn a_server_without_a_command_is_sent_one_map_a_message() {
    within(LIMIT, || {
        for command in ["MULTI", "EXEC", "EVALSHA"] {
            let server = Server::with(&["--rename-command", command, ""]);
            let (rig, publisher) = pair(&server, &driver(&server.address()));
            for name in ["one", "two", "three"] {
                let messages = messages_per_batch(&rig, &publisher, name);
                assert!(
                    name == "one" || messages[1..] == [10, 10, 10],
                    "{command}: {messages:?}"
                );
            }
            let stats: String = server.ask(&["INFO", "stats"]);
            let connections = stats
                .lines()
                .find_map(|line| line.strip_prefix("total_connections_received:"));
            let connections: u32 = connections.unwrap().parse().unwrap();
            assert!(connections < 12, "{command}: {connections}");
            nothing_else_came(&rig, &publisher);
        }
    });
}
