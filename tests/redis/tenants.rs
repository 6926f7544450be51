//! Access lists for tenants, as the page on security states them: a node reads its own tenant's topics and tables alone,
//! and no tenant writes or publishes in another's name.

use std::time::Duration;

use tablecast::codec::{Codec, Encoder};
use tablecast::config::{Config, Secret};
use tablecast::store::Write;
use tablecast::{DbUpdate, ErrorKind, Event, Node, Result, SyncReason, Topic};

use crate::common::{eventually, within};
use crate::rig::{LONG, topic};
use crate::servers::Server;

const LIMIT: Duration = Duration::from_secs(60);

const PAGE: &str = include_str!("../../src/docs/security.md");

/// The words of a line for redis-cli, in which a text in quotes has bytes as `\x..`.
fn words(line: &str) -> Vec<String> {
    let word = |word: &str| {
        let Some(quoted) = word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) else {
            return word.to_owned();
        };
        let mut parts = quoted.split("\\x");
        let mut bytes = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend_from_slice(&part.as_bytes()[2..]);
        }
        String::from_utf8(bytes).unwrap()
    };
    line.split_whitespace().map(word).collect()
}

/// A server with the users of the page.
fn server() -> Server {
    let server = Server::start();
    let lines: Vec<_> = PAGE.lines().filter(|line| line.starts_with("ACL SETUSER")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines {
        let words = words(line);
        let () = server.ask(&words.iter().map(String::as_str).collect::<Vec<_>>());
        // The same rights for the tenant 2.
        let other = words.iter().map(|word| match word.as_str() {
            "node1" => "node2".to_owned(),
            "controller1" => "controller2".to_owned(),
            word => word.replace("tenant1", "tenant2"),
        });
        let other: Vec<_> = other.collect();
        let () = server.ask(&other.iter().map(String::as_str).collect::<Vec<_>>());
    }
    server
}

fn node(server: &Server, user: &str, topics: &[&str]) -> Node {
    node_at(&[server.host()], user, topics)
}

fn node_at(hosts: &[String], user: &str, topics: &[&str]) -> Node {
    let mut config = Config::default();
    config.nb_db_class = "redis".into();
    config.pub_sub_driver = "redis".into();
    config.pub_sub_use_multiproc = false;
    config.remote_db_hosts = hosts.to_vec();
    config.redis_user = user.into();
    config.redis_password = Secret::new("secret");
    config.topics = topics.iter().map(|name| topic(name)).collect();
    // A busy machine may hold up the server.
    (
        config.send_timeout_ms,
        config.heartbeat_timeout_ms,
        config.store_timeout_ms,
    ) = (LONG, LONG, 2 * LONG);
    Node::open(&config).unwrap()
}

#[track_caller]
fn assert_denied<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

/// A row of the tenant's own table, on its topic.
fn write<'a>(table: &'a str, topic: &'a Topic, value: &'a str) -> Write<'a> {
    Write::set(table, "k", value).topic(topic)
}

#[test]
fn a_tenant_reads_and_changes_only_its_own() {
    within(LIMIT, || {
        let server = server();
        let (one, two) = (&topic("tenant1"), &topic("tenant2"));
        let controller = node(&server, "controller1", &["tenant1"]);
        let other = node(&server, "controller2", &["tenant2"]);
        let create = |node: &Node, table, topic| {
            let row = Write::create(table, "k", "first").topic(topic);
            node.database().unwrap().write(&row, 5).map(drop)
        };
        create(&controller, "tenant1.ports", one).unwrap();
        create(&other, "tenant2.ports", two).unwrap();

        let reader = node(&server, "node1", &["tenant1"]);
        let replica = reader.replica().unwrap();
        let ports = replica.raw_table("tenant1.ports").unwrap();
        replica.wait_current(LONG).unwrap();
        reader.subscriber().unwrap().wait_live(LONG).unwrap();
        let held = || ports.get("k").unwrap().map(|entry| entry.row.clone());
        assert_eq!(held().as_deref(), Some("first"));
        let database = controller.database().unwrap();
        database.write(&write("tenant1.ports", one, "second"), 5).unwrap();
        eventually(LONG, || held().as_deref() == Some("second"));
        assert!(replica.verify(LONG).unwrap().is_empty());
        assert_eq!(replica.stats().failures, 0);

        // A node changes nothing, not even its own tenant's.
        let store = reader.store().unwrap();
        assert_denied(store.write(&write("tenant1.ports", one, "forged")));
        assert_denied(store.delete_table("tenant1.ports"));
        let update = tablecast::DbUpdate::new("tenant1.ports", "k", "set".into());
        let publisher = reader.publisher().unwrap();
        assert_denied(publisher.send_event(&update.clone().topic(one.clone())));
        // Nobody sees another tenant's tables.
        for node in [&reader, &controller] {
            let store = node.store().unwrap();
            assert_denied(store.get("tenant2.ports", "k", None));
            assert_denied(store.page_of_entries("tenant2.ports", None, None));
            assert_denied(store.tables());
            assert_denied(store.table_version("tenant2.ports"));
            assert_denied(store.topic_versions("tenant2.ports", std::slice::from_ref(two)));
            assert_denied(store.write(&write("tenant2.ports", two, "forged")));
        }
        // No update on another's topic, alone or with a write, and no write without its update.
        assert_denied(controller.publisher().unwrap().send_event(&update.topic(two.clone())));
        assert_denied(database.write(&Write::create("tenant1.ports", "l", "forged").topic(two), 5));
        assert_denied(database.write(&write("tenant2.ports", two, "forged"), 5));
        let theirs = other.store().unwrap();
        assert_eq!(theirs.get("tenant2.ports", "k", None).unwrap().value, "first");
        assert!(controller.store().unwrap().get("tenant1.ports", "l", None).is_err());

        // Nor does anyone listen to it.
        let subscriber = reader.subscriber().unwrap();
        subscriber.register_topic(two).unwrap();
        let error = subscriber.wait_live(Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        other
            .database()
            .unwrap()
            .write(&write("tenant2.ports", two, "second"), 5)
            .unwrap();
        database.write(&write("tenant1.ports", one, "third"), 5).unwrap();
        eventually(LONG, || held().as_deref() == Some("third"));
        assert_eq!(server.ask::<(String, i64)>(&["PUBSUB", "NUMSUB", "tenant2"]).1, 0);
    });
}

/// All tenants share the channel of hellos.
#[test]
fn a_forged_hello_hides_no_update_of_another_tenant() {
    within(LIMIT, || {
        let server = server();
        let two = topic("tenant2");
        let reader = node(&server, "node2", &["tenant2"]);
        let (sender, events) = crossbeam_channel::unbounded();
        reader.dispatcher().unwrap().on_event(sender).detach();
        reader.subscriber().unwrap().wait_live(LONG).unwrap();
        let writer = node(&server, "controller2", &["tenant2"]);
        let publisher = writer.publisher().unwrap();

        let url = format!("redis://controller1:secret@{}", server.host());
        let mut forger = redis::Client::open(url).unwrap().get_connection().unwrap();
        let mut forge = |number: u64| {
            let text = format!(r#"{{"every":1000,"topics":[["tenant2",{number},0]],"at":5}}"#);
            let encoder = Encoder::new(Codec::MessagePack, publisher.id().clone(), publisher.epoch());
            let mut hello = Vec::new();
            encoder.control("hello", Some(&text), &Topic::ALL, &mut hello);
            let channel = "\u{10FFFF}tablecast/hello";
            let () = redis::cmd("PUBLISH")
                .arg(channel)
                .arg(hello)
                .query(&mut forger)
                .unwrap();
        };
        // Before the first update, and behind the last.
        for (round, lie) in [(0, u64::MAX - 1), (1, u64::MAX)] {
            events.try_iter().for_each(drop);
            forge(lie);
            let told = |event| matches!(event, Event::Sync(SyncReason::Unproven { .. } | SyncReason::Gap { .. }));
            eventually(LONG, || events.try_iter().any(told));
            for number in 0..3 {
                let key = format!("{round} {number}");
                let update = DbUpdate::new("tenant2.ports", &*key, "set".into()).topic(two.clone());
                publisher.send_event(&update).unwrap();
                let came = |event: Event| matches!(event, Event::Update(update) if update.key == *key);
                eventually(LONG, || events.try_iter().any(came));
            }
        }
    });
}

/// Nobody may ask the servers who they are.
#[test]
fn one_server_by_two_names_is_not_two_masters() {
    within(LIMIT, || {
        let (server, second) = (server(), server());
        for server in [&server, &second] {
            for user in ["node1", "controller1"] {
                let () = server.ask(&["ACL", "SETUSER", user, "-info"]);
            }
        }
        let names = [server.host(), format!("localhost:{}", server.port())];
        let one = &topic("tenant1");
        let reader = node_at(&names, "node1", &["tenant1"]);
        reader.subscriber().unwrap().wait_live(LONG).unwrap();
        let controller = node_at(&names, "controller1", &["tenant1"]);
        let row = Write::create("tenant1.ports", "k", "first").topic(one);
        controller.database().unwrap().write(&row, 5).unwrap();
        assert_eq!(
            reader.store().unwrap().get("tenant1.ports", "k", None).unwrap().value,
            "first"
        );

        // Two servers are.
        let names = [server.host(), second.host()];
        let two = |user: &str| {
            node_at(&names, user, &["tenant1"])
                .store()
                .unwrap()
                .get("tenant1.ports", "k", None)
        };
        for user in ["node1", "controller1"] {
            let text = two(user).unwrap_err().to_string();
            assert!(text.contains("both say") && !text.contains("EVALSHA"), "{text}");
        }
        // Without the right to find out, the error names what is missing.
        for server in [&server, &second] {
            let () = server.ask(&["ACL", "SETUSER", "node1", "-evalsha"]);
        }
        let text = two("node1").unwrap_err().to_string();
        assert!(
            text.contains("both say") && text.contains("INFO, or EVAL") && text.contains("NOPERM"),
            "{text}"
        );
    });
}
