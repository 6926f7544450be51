//! Processes in another language that speak ZeroMQ and MessagePack as Dragonflow does.
#![cfg(feature = "bin")]

mod common;
#[path = "common/process.rs"]
mod process;

use std::time::Instant;

use crossbeam_channel::TryRecvError;
use process::{Process, python, run, tablecast};
use tablecast::{Action, Config, DbUpdate, Node};

/// Binds a PUB socket on a free port, prints its address, and repeats one update for up to 30 s.
const PUBLISHER: &str = r#"
import sys, time, msgpack, zmq
socket = zmq.Context().socket(zmq.PUB)
socket.linger = 0
print('tcp://127.0.0.1:%d' % socket.bind_to_random_port('tcp://127.0.0.1'))
update = {'table': 'lport', 'key': 'port-1', 'action': 'create', 'value': '{"chassis": "host1"}', 'topic': sys.argv[1]}
for _ in range(600):
    socket.send_multipart([sys.argv[1].encode(), msgpack.packb(update, use_bin_type=True)])
    time.sleep(0.05)
"#;

/// Connects a SUB socket, and prints the first message for up to 30 s.
const SUBSCRIBER: &str = r#"
import sys, msgpack, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.linger = 0
socket.subscribe(b'tenant1')
socket.connect(sys.argv[1])
if not socket.poll(30000):
    sys.exit('nothing came')
topic, payload = socket.recv_multipart()
update = msgpack.unpackb(payload, raw=False)
print(topic.decode())
for field in ('table', 'key', 'action', 'value', 'topic'):
    print(field, type(update[field]).__name__, update[field])
"#;

/// Connects SUB sockets, one after the other, each of which reads 200 messages of topic D, and prints how many of all
/// messages were not a single map.
const PASSERS_BY: &str = r#"
import sys, msgpack, zmq
context = zmq.Context()
wrong = heard = 0
for _ in range(20):
    socket = context.socket(zmq.SUB)
    socket.linger = 0
    socket.subscribe(b'D')
    socket.connect(sys.argv[1])
    for _ in range(200):
        if not socket.poll(30000):
            sys.exit('nothing came')
        topic, payload = socket.recv_multipart()
        heard += 1
        wrong += not isinstance(msgpack.unpackb(payload, raw=False), dict)
    socket.close()
print(heard, wrong)
"#;

/// Connects a PUSH socket and sends one update. pyzmq does not wait for `linger` at exit: only `term` does.
const PUSHER: &str = r#"
import sys, msgpack, zmq
context = zmq.Context()
socket = context.socket(zmq.PUSH)
socket.linger = 10000
socket.sndtimeo = 10000
socket.connect(sys.argv[1])
update = {'table': 'lport', 'key': 'port-1', 'action': 'delete', 'value': None, 'topic': 'D'}
socket.send_multipart([b'D', msgpack.packb(update, use_bin_type=True)])
socket.close()
context.term()
"#;

#[test]
fn watch_hears_a_publisher_without_hellos() {
    let mut publisher = Process::start(python(PUBLISHER, "tenant1"));
    let address = publisher.line();
    let args = [
        "--topic",
        "tenant1",
        "--live-timeout-ms",
        "200",
        "--publisher",
        &address,
    ];
    let mut watch = Process::start(tablecast(["watch"].iter().chain(&args)));
    watch.await_stderr("ready");
    assert!(
        watch.stderr().contains(&format!("warning: {address} ")),
        "{}",
        watch.stderr()
    );
    let update = r#"{"event":"update","table":"lport","key":"port-1","action":"create","value":"{\"chassis\": \"host1\"}","topic":"tenant1","priority":5}"#;
    let mut lines: Vec<String> = Vec::new();
    while !lines.iter().any(|line| line == update) || !lines.iter().any(|line| line.contains("connected")) {
        lines.push(watch.line());
    }
}

/// A script in the form of Dragonflow's releases of up to mid-2016.
fn of_2016(script: &str) -> String {
    let script = script.replace("import ", "import json, ");
    let script = script.replace(
        "packb(update, use_bin_type=True)",
        "packb(json.dumps(update), use_bin_type=False)",
    );
    script.replace(
        "msgpack.unpackb(payload, raw=False)",
        "json.loads(msgpack.unpackb(payload, raw=False))",
    )
}

#[test]
fn a_publisher_of_2016_is_heard() {
    let mut publisher = Process::start(python(&of_2016(PUBLISHER), "tenant1"));
    let address = publisher.line();
    let args = [
        "--topic",
        "tenant1",
        "--count",
        "1",
        "--live-timeout-ms",
        "200",
        "--publisher",
        &address,
    ];
    let end = run(tablecast(["watch"].iter().chain(&args)));
    let update = r#"{"event":"update","table":"lport","key":"port-1","action":"create","value":"{\"chassis\": \"host1\"}","topic":"tenant1","priority":5}"#;
    assert!(end.stdout.iter().any(|line| line == update), "{end:?}");
}

#[test]
fn a_foreign_subscriber_hears_publish() {
    hears_publish(SUBSCRIBER, "msgpack");
}

#[test]
fn a_subscriber_of_2016_hears_publish() {
    hears_publish(&of_2016(SUBSCRIBER), "dragonflow-1");
}

fn hears_publish(script: &str, codec: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.sock");
    let mut subscriber = Process::start(python(script, &format!("ipc://{}", path.display())));
    let row = [
        "--table", "lport", "--key", "port-1", "--value", "text", "--topic", "tenant1",
    ];
    let how = [
        "--no-multiproc",
        "--wait-subscribers",
        "1",
        "--publisher-transport",
        "ipc",
        "--codec",
        codec,
    ];
    let mut command = tablecast(["publish", "--publisher-bind-address"]);
    command.arg(&path).args(row).args(how);
    let end = run(command);
    assert_eq!(
        (end.code, end.stdout),
        (Some(0), vec!["published 1".into()]),
        "{}",
        end.stderr
    );
    let end = subscriber.end();
    let heard = [
        "tenant1",
        "table str lport",
        "key str port-1",
        "action str set",
        "value str text",
        "topic str tenant1",
    ];
    assert_eq!(end.stdout, heard, "{}", end.stderr);
}

/// Dragonflow's nodes come and go during a burst of a publisher that also has tablecast's subscribers.
#[test]
fn foreign_subscribers_get_one_map_a_frame_in_a_burst() {
    let options = [("pub_sub_use_multiproc", "false"), ("publisher_port", "0")];
    let config = Config::default().loaded(None, options).unwrap();
    let publisher = Node::open(&config).unwrap().publisher().unwrap();
    let address = publisher.address().unwrap();
    let options = [("publishers", address.as_str())];
    let config = Config::default().loaded(None, options).unwrap();
    let node = Node::open(&config).unwrap();
    let (_dispatcher, subscriber) = (node.dispatcher().unwrap(), node.subscriber().unwrap());
    subscriber.wait_live(process::LIMIT).unwrap();
    let (over, is_over) = crossbeam_channel::bounded::<()>(0);
    let passers_by = std::thread::Builder::new().spawn(move || {
        let _over = over;
        run(python(PASSERS_BY, &address))
    });
    let update = DbUpdate::new("lport", "port-1", Action::Set).value("{}");
    let mut count = 0;
    while is_over.try_recv() == Err(TryRecvError::Empty) {
        for _ in 0..100 {
            publisher.send_event(&update).unwrap();
        }
        count += 100;
        let deadline = Instant::now() + process::LIMIT;
        while subscriber.stats().decoded + 1000 < count {
            assert!(Instant::now() < deadline, "{:?}", subscriber.stats());
            std::thread::yield_now();
        }
    }
    let end = passers_by.unwrap().join().unwrap();
    assert_eq!(end.stdout, ["4000 0"], "{}", end.stderr);
    let stats = subscriber.stats();
    assert!(stats.received < count, "some were joined: {stats:?}");
    assert_eq!((stats.gaps, stats.malformed), (0, 0));
}

#[test]
fn the_service_passes_on_what_a_foreign_process_pushes() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tablecast(["service", "--publisher-port", "0", "--publisher-multiproc-socket"]);
    command.arg(folder.path().join("publisher.sock"));
    let mut service = Process::start(command);
    let ready = service.line();
    let [_, network, local] = ready.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let mut watch = Process::start(tablecast(["watch", "--count", "1", "--publisher", network]));
    watch.await_stderr("ready");
    let end = run(python(PUSHER, local));
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    let end = watch.end();
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    let update =
        r#"{"event":"update","table":"lport","key":"port-1","action":"delete","value":null,"topic":"D","priority":5}"#;
    assert_eq!(end.stdout.last().map(String::as_str), Some(update));
}
