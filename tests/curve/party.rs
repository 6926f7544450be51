//! Keys in a temporary folder, drivers that use them, and foreign clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tablecast::drivers::zmq::{KeyPair, ZmqDriver, ZmqOptions};
use tablecast::transport::{Driver, Inbound, Outbound, Received};
use tablecast::{Error, Topic};
use tempfile::TempDir;

use crate::process::{LIMIT, Process, python};

/// Connects a SUB socket that prints the topics that it gets, or a PUB socket that sends its name on topic D. Prints
/// `in` when it is let in, and `out` when it is not, or no longer.
const CLIENT: &str = "
import json, sys, time, zmq
from zmq.utils.monitor import recv_monitor_message
want = json.loads(sys.argv[1])
socket = zmq.Context().socket(zmq.SUB if want['kind'] == 'sub' else zmq.PUB)
socket.linger = 0
if want['server']:
    socket.curve_serverkey = want['server'].encode()
    socket.curve_publickey = want['public'].encode()
    socket.curve_secretkey = want['secret'].encode()
monitor = socket.get_monitor_socket()
poller = zmq.Poller()
poller.register(monitor, zmq.POLLIN)
if want['kind'] == 'sub':
    socket.subscribe(b'')
    poller.register(socket, zmq.POLLIN)
socket.connect(want['address'])
out = (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_DISCONNECTED)
end = time.time() + 100
while time.time() < end:
    ready = dict(poller.poll(20))
    if monitor in ready:
        event = recv_monitor_message(monitor)['event']
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            print('in')
        elif event in out:
            print('out')
    if socket in ready:
        print('got', socket.recv_multipart()[0].decode())
    if want['kind'] == 'pub':
        socket.send_multipart([b'D', want['name'].encode()])
";

/// A folder with a server's pair, and a list of clients beside it.
pub(crate) struct Party {
    folder: TempDir,
    server: KeyPair,
}

/// What a client of another program is called, and the keys that it has.
pub(crate) struct Guest {
    pub(crate) name: &'static str,
    /// The key that it takes for the server's; empty for none.
    server: String,
    public: String,
    secret: String,
}

impl Party {
    pub(crate) fn new() -> Party {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("clients")).unwrap();
        let server = KeyPair::generate().unwrap();
        server.save(&folder.path().join("server")).unwrap();
        Party { folder, server }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A pair in the file of this name, which is not on the list.
    pub(crate) fn pair(&self, name: &str) -> KeyPair {
        let pair = KeyPair::generate().unwrap();
        pair.save(&self.path(name)).unwrap();
        pair
    }

    /// A pair in the file of each name, which is on the list.
    pub(crate) fn invite(&self, names: &[&str]) {
        for name in names {
            self.pair(name);
            self.list(name);
        }
    }

    /// Puts this pair on the list.
    pub(crate) fn list(&self, name: &str) {
        // In one step, as a list should be changed.
        fs::copy(self.path(&format!("{name}.pub")), self.path("clients/.new")).unwrap();
        fs::rename(self.path("clients/.new"), self.path("clients").join(name)).unwrap();
    }

    pub(crate) fn unlist(&self, name: &str) {
        fs::remove_file(self.path("clients").join(name)).unwrap();
    }

    /// The options of the server, which lets in those on the list.
    pub(crate) fn options(&self) -> ZmqOptions {
        ZmqOptions {
            curve_secret_key_file: self.path("server"),
            curve_allowed_clients: self.path("clients"),
            ..ZmqOptions::default()
        }
    }

    /// The server's driver.
    pub(crate) fn driver(&self) -> ZmqDriver {
        ZmqDriver::new("tcp://127.0.0.1:0", self.options()).unwrap()
    }

    /// The driver of a client with this pair, whose server is the party's.
    pub(crate) fn client(&self, name: &str) -> Arc<dyn Driver> {
        let options = ZmqOptions {
            curve_secret_key_file: self.path(name),
            curve_server_key: self.server.public().into(),
            ..ZmqOptions::default()
        };
        Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", options).unwrap())
    }

    /// A client of another program with this pair.
    pub(crate) fn guest(&self, name: &'static str, server: &str) -> Guest {
        let text = fs::read_to_string(self.path(name)).unwrap();
        let field = |field: &str| {
            let line = text.lines().find(|line| line.trim().starts_with(field)).unwrap();
            line.split('"').nth(1).unwrap().to_owned()
        };
        Guest {
            name,
            server: server.to_owned(),
            public: field("public-key"),
            secret: field("secret-key"),
        }
    }

    /// A listed client, and those that must stay outside: without keys, with another server's key, and one that is not
    /// on the list.
    pub(crate) fn guests(&self) -> (Guest, [Guest; 3]) {
        for name in ["listed", "plain", "misled", "unlisted"] {
            self.pair(name);
        }
        self.list("listed");
        self.list("misled");
        let other = KeyPair::generate().unwrap();
        let server = self.server.public();
        let outsiders = [
            self.guest("plain", ""),
            self.guest("misled", other.public()),
            self.guest("unlisted", server),
        ];
        (self.guest("listed", server), outsiders)
    }
}

impl Guest {
    /// Starts it as `sub` or `pub`.
    pub(crate) fn start(&self, kind: &str, address: &str) -> Process {
        let want = json!({
            "kind": kind, "address": bare(address), "name": self.name,
            "server": self.server, "public": self.public, "secret": self.secret,
        });
        Process::start(python(CLIENT, &want.to_string()))
    }
}

/// The address without its key.
pub(crate) fn bare(address: &str) -> &str {
    address.split("?key=").next().unwrap().trim_start_matches('@')
}

/// Waits until it prints this line; calls `meanwhile` again and again.
pub(crate) fn await_line(process: &mut Process, line: &str, mut meanwhile: impl FnMut()) {
    let deadline = Instant::now() + LIMIT;
    loop {
        meanwhile();
        if process
            .line_by(Instant::now() + Duration::from_millis(20))
            .is_some_and(|printed| printed == line)
        {
            return;
        }
        assert!(Instant::now() < deadline, "no line {line:?}; {}", process.stderr());
    }
}

/// Ends it, and checks that it was never let in, or, if it is in, that it got nothing on this topic.
pub(crate) fn assert_outside(mut process: Process, topic: Option<&str>) {
    process.signal("TERM");
    let end = process.end();
    assert_eq!(end.stderr, "");
    let got = |line: &&String| match topic {
        None => !line.starts_with("out"),
        Some(topic) => **line == format!("got {topic}"),
    };
    assert_eq!(end.stdout.iter().filter(got).count(), 0, "{:?}", end.stdout);
}

/// Sends on this topic, as a publisher's threads would.
pub(crate) fn send(outbound: &mut dyn Outbound, topic: &str) {
    outbound.probes().unwrap();
    outbound.send(topic.as_bytes(), b"value", Duration::ZERO).unwrap();
}

/// Sends on this topic until the client prints that it got `count`.
pub(crate) fn send_until_got(outbound: &mut dyn Outbound, topic: &str, count: usize, client: &mut Process) {
    let line = format!("got {topic}");
    let limit = Instant::now() + LIMIT;
    let mut got = 0;
    while got < count {
        assert!(Instant::now() < limit, "got {got} of {count}: {}", client.stderr());
        send(outbound, topic);
        let deadline = Instant::now() + Duration::from_millis(20);
        while let Some(printed) = client.line_by(deadline) {
            got += usize::from(printed == line);
        }
    }
}

/// A receiving end that listens at this address, for topic D.
pub(crate) fn receive(driver: &dyn Driver, address: &str) -> Box<dyn Inbound> {
    let (mut inbound, _wake) = driver.inbound().unwrap();
    inbound.subscribe(&Topic::new("D").unwrap()).unwrap();
    inbound.connect(address).unwrap();
    inbound
}

/// The payloads that come until `is_enough`.
pub(crate) fn payloads(inbound: &mut dyn Inbound, mut is_enough: impl FnMut(&[String]) -> bool) -> Vec<String> {
    let deadline = Instant::now() + LIMIT;
    let (mut all, mut others) = (Vec::new(), Vec::new());
    while !is_enough(&all) {
        assert!(Instant::now() < deadline, "came: {all:?}, and {others:?}");
        match inbound.recv(Some(Duration::from_millis(100))) {
            Ok(Received::Frame { payload, .. }) => all.push(String::from_utf8_lossy(payload).into_owned()),
            Ok(Received::Idle) => {}
            other => others.push(format!("{other:?}")),
        }
    }
    all
}

/// The first error that comes.
pub(crate) fn first_error(inbound: &mut dyn Inbound) -> Error {
    let deadline = Instant::now() + LIMIT;
    loop {
        assert!(Instant::now() < deadline, "no error came");
        if let Err(e) = inbound.recv(Some(Duration::from_millis(100))) {
            return e;
        }
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
