//! A network for one test: a loopback interface, a hosts file, and a name server that answers when the test says so.
#![allow(dead_code, reason = "every test target uses a part of it")]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};

use crate::reexec::Process;

/// Set in the process inside the network.
const INSIDE: &str = "TABLECAST_TEST_NETWORK";

/// Runs the rest of the arguments with the files of the folder in the first argument in place of the system's.
const SCRIPT: &str = r#"
set -e
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
for file in hosts resolv.conf nsswitch.conf; do
    if [ -e "/etc/$file" ]; then mount --bind "$1/$file" "/etc/$file"; fi
done
shift
exec "$@"
"#;

const DONE: &str = "the test is done";

/// Runs `body` in a process that has a network, a hosts file with these lines, and a name server of its own.
///
/// `test` is the full name of the test that calls this.
pub(crate) fn alone(test: &str, hosts: &str, body: impl FnOnce(&NameServer)) {
    if std::env::var_os(INSIDE).is_some() {
        body(&NameServer::start());
        println!("{DONE}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (file, content) in [
        ("hosts", format!("127.0.0.1 localhost\n{hosts}\n")),
        ("resolv.conf", "nameserver 127.0.0.1\n".into()),
        ("nsswitch.conf", "hosts: files dns\n".into()),
    ] {
        std::fs::write(folder.path().join(file), content).unwrap();
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "--net", "sh", "-c", SCRIPT, "sh"]);
    command.arg(folder.path()).arg(std::env::current_exe().unwrap());
    let mut process = Process::start_with(command, test, &[(INSIDE, "1")]);
    process.until(DONE);
    // A hanging look-up does not delay the end of the process.
    let end = crate::common::Stopwatch::start();
    process.finish();
    end.assert_within(Duration::from_secs(2), "its end");
}

/// An address at which connecting hangs: its queue is full, and the system does not answer.
pub(crate) fn deaf(address: SocketAddr) -> (Socket, Vec<Socket>) {
    let socket = || Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&address.into()).unwrap();
    listener.listen(0).unwrap();
    let fill = |_| {
        let filling = socket();
        filling.set_nonblocking(true).unwrap();
        let _ = filling.connect(&address.into());
        filling
    };
    let mut filling: Vec<Socket> = (0..4).map(fill).collect();
    let patience = Duration::from_millis(100);
    let is_full = || match TcpStream::connect_timeout(&address, patience) {
        Ok(stream) => {
            filling.push(stream.into());
            false
        }
        Err(_) => true,
    };
    crate::common::eventually(Duration::from_secs(20), is_full);
    (listener, filling)
}

/// Runs `ip` with these arguments.
pub(crate) fn ip(args: &str) {
    let done = Command::new("ip").args(args.split(' ')).status();
    assert!(done.unwrap().success(), "ip {args}");
}

/// A name server that does not answer for names it was not given.
pub(crate) struct NameServer {
    socket: Arc<UdpSocket>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    names: HashMap<String, Vec<IpAddr>>,
    unanswered: Vec<(Question, SocketAddr)>,
    asked: HashMap<String, usize>,
}

struct Question {
    name: String,
    /// The received message, up to the end of the question.
    bytes: Vec<u8>,
    is_ipv6: bool,
}

impl NameServer {
    fn start() -> NameServer {
        let server = NameServer {
            socket: Arc::new(UdpSocket::bind("127.0.0.1:53").unwrap()),
            state: Arc::default(),
        };
        let (socket, state) = (Arc::clone(&server.socket), Arc::clone(&server.state));
        let serve = move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let question = Question::read(&buffer[..length]).unwrap();
                let mut state = state.lock();
                *state.asked.entry(question.name.clone()).or_default() += 1;
                match state.names.get(&question.name) {
                    Some(addresses) => drop(socket.send_to(&question.answer(addresses), from)),
                    None => state.unanswered.push((question, from)),
                }
            }
        };
        std::thread::Builder::new().spawn(serve).unwrap();
        server
    }

    /// From now on answers that `name` has these addresses, earlier questions included.
    pub(crate) fn tell(&self, name: &str, addresses: &[&str]) {
        let addresses: Vec<_> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let mut state = self.state.lock();
        state.unanswered.retain(|(question, from)| {
            let is_it = question.name == name;
            if is_it {
                // The asking end may have given up.
                let _ = self.socket.send_to(&question.answer(&addresses), *from);
            }
            !is_it
        });
        state.names.insert(name.to_owned(), addresses);
    }

    /// From now on does not answer for this name.
    pub(crate) fn forget(&self, name: &str) {
        self.state.lock().names.remove(name);
    }

    /// How often this name was asked for: at least twice for each look-up.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.state.lock().asked.get(name).copied().unwrap_or_default()
    }
}

/// The length of the header of a message.
const HEADER: usize = 12;

impl Question {
    fn read(message: &[u8]) -> Option<Question> {
        let (mut end, mut labels) = (HEADER, Vec::new());
        loop {
            let length = usize::from(*message.get(end)?);
            end += 1;
            if length == 0 {
                break;
            }
            labels.push(str::from_utf8(message.get(end..end + length)?).ok()?);
            end += length;
        }
        // The type and the class, of two bytes each.
        let is_ipv6 = message.get(end..end + 2)? == 28_u16.to_be_bytes();
        Some(Question {
            name: labels.join("."),
            bytes: message.get(..end + 4)?.to_vec(),
            is_ipv6,
        })
    }

    fn answer(&self, addresses: &[IpAddr]) -> Vec<u8> {
        let addresses = addresses.iter().filter(|address| address.is_ipv6() == self.is_ipv6);
        let mut message = self.bytes.clone();
        // An answer without an error: one question, this many answers, and nothing more.
        message[2..4].copy_from_slice(&[0x81, 0x80]);
        message[4..HEADER].copy_from_slice(&[0, 1, 0, addresses.clone().count() as u8, 0, 0, 0, 0]);
        for address in addresses {
            // The name of the question, its type and class, and a lifetime of one second.
            message.extend([
                0xc0,
                HEADER as u8,
                0,
                if self.is_ipv6 { 28 } else { 1 },
                0,
                1,
                0,
                0,
                0,
                1,
            ]);
            let bytes = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            message.extend([0, bytes.len() as u8]);
            message.extend(bytes);
        }
        message
    }
}
