//! redis-py at the other end.

use std::time::Duration;

use tablecast::queue::QueueOptions;
use tablecast::{Action, DbUpdate, SubscriberOptions, SyncReason, Topic, TopicState};

use crate::common::within;
use crate::process::{Process, python};
use crate::rig::{Rig, send};
use crate::servers::Server;
use crate::{driver, listening, publisher, subscriber, syncs};

const SCRIPT: &str = r#"
import json, msgpack, redis, sys

port = int(sys.argv[1])
client = redis.Redis(host="127.0.0.1", port=port)
channel = client.pubsub()
channel.subscribe("tenant1")
assert channel.get_message(timeout=10)["type"] == "subscribe"
print("ready", flush=True)
heard = channel.get_message(timeout=10)
print(heard["channel"].decode(), json.dumps(msgpack.unpackb(heard["data"]), sort_keys=True), flush=True)
sys.stdin.readline()
update = {"table": "lport", "key": "port-1", "action": "create", "value": json.dumps({"id": 1}), "topic": "tenant1"}
print(client.publish("tenant1", json.dumps(update)), flush=True)
print(client.publish("tenant1", b"\xff no update"), flush=True)
update = {"table": "lport", "key": "port-1", "action": "delete", "value": None, "topic": "tenant1"}
print(client.publish("tenant1", json.dumps(update)), flush=True)
"#;

/// A client that understands one map in a message.
const LISTENER: &str = r#"
import msgpack, redis, sys

channel = redis.Redis(host="127.0.0.1", port=int(sys.argv[1])).pubsub()
channel.subscribe("tenant1")
assert channel.get_message(timeout=10)["type"] == "subscribe"
print("ready", flush=True)
for _ in range(4):
    print(msgpack.unpackb(channel.get_message(timeout=10)["data"])["key"], flush=True)
"#;

#[test]
fn redis_py_understands_a_batch() {
    within(Duration::from_secs(60), || {
        let server = Server::start();
        let mut peer = Process::start(python(LISTENER, &server.port().to_string()));
        assert_eq!(peer.line(), "ready");
        let driver = driver(&server.address());
        let rig = subscriber(&driver);
        rig.listen(&["tenant1"], &server.address());
        let publisher = publisher(&driver);
        let topic = Topic::new("tenant1").unwrap();
        let update = |key: &&str| DbUpdate::new("row", *key, Action::Set).value("{}");
        for batch in [&["1", "2", "3"][..], &["4"]] {
            let updates: Vec<_> = batch.iter().map(update).collect();
            publisher.send_batch(&topic, &updates).unwrap();
        }
        for key in ["1", "2", "3", "4"] {
            assert_eq!(peer.line(), key);
            assert_eq!(rig.next_key(), key);
        }
        assert_eq!(peer.end().code, Some(0));
        syncs(&rig, &["connected"]);
    });
}

#[test]
fn redis_py_publishes_and_hears() {
    within(Duration::from_secs(60), || {
        let server = Server::start();
        let mut peer = Process::start(python(SCRIPT, &server.port().to_string()));
        assert_eq!(peer.line(), "ready");
        let driver = driver(&server.address());
        send(&publisher(&driver), "tenant1", "k");
        let heard = peer.line();
        let (channel, message) = heard.split_once(' ').unwrap();
        let message: serde_json::Value = serde_json::from_str(message).unwrap();
        assert_eq!(channel, "tenant1");
        assert_eq!(message["table"], "row");
        assert_eq!(message["key"], "k");
        assert_eq!(message["action"], "set");
        assert_eq!(message["value"], "{}");
        assert_eq!(message["topic"], "tenant1");
        assert_eq!(message["seq"], 1);

        let rig = subscriber(&driver);
        rig.listen(&["tenant1"], &server.address());
        peer.write("\n");
        let update = rig.next();
        assert_eq!(
            (&*update.table, &*update.key, update.action.as_str()),
            ("lport", "port-1", "create")
        );
        assert_eq!(update.value.as_deref(), Some(r#"{"id": 1}"#));
        let update = rig.next();
        assert_eq!((update.action.as_str(), update.value), ("delete", None));
        assert_eq!(rig.subscriber.stats().malformed, 1);
        for _ in 0..3 {
            // Each reached the subscriber, and the script's own subscription.
            assert_eq!(peer.line(), "2");
        }
        assert_eq!(peer.end().code, Some(0));
        syncs(&rig, &["connected"]);
    });
}

/// The server answers questions for publishers that number nothing.
#[test]
fn what_foreign_publishers_send_is_not_proven() {
    within(Duration::from_secs(60), || {
        let server = Server::start();
        let options = SubscriberOptions {
            resync_without_hellos: Duration::from_millis(200),
            ..listening()
        };
        let rig = Rig::with(&driver(&server.address()), options, QueueOptions::default());
        rig.listen(&["tenant1", "D"], &server.address());
        assert_eq!(rig.next_sync().as_str(), "connected");
        let update = r#"{"table": "t", "key": "k", "action": "set", "topic": "tenant1"}"#;
        assert_eq!(server.ask::<u64>(&["PUBLISH", "tenant1", update]), 1);
        assert_eq!(rig.next_key(), "k");
        let states: Vec<_> = rig
            .subscriber
            .status()
            .topics
            .into_iter()
            .map(|topic| topic.state)
            .collect();
        assert_eq!(states, [TopicState::Live, TopicState::Unconfirmed]);
        for _ in 0..3 {
            assert_eq!(rig.next_sync(), SyncReason::NoHellos);
        }
    });
}
