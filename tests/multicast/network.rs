//! Two networks for one test, and a cable between them that loses what the test says.

use std::process::Command;

use crate::process::{Process, python};
use crate::reexec;

/// Set in the process inside the network.
const INSIDE: &str = "TABLECAST_TEST_NETWORK";
const DONE: &str = "the test is done";

/// The interfaces of both ends, and the address of this one.
pub(crate) const HERE: &str = "here0";
pub(crate) const THERE: &str = "there0";
pub(crate) const ADDRESS: &str = "10.9.9.1";

/// Passes what comes in at one end of the cable to the other, except for a part of the UDP packets, which each line of
/// input sets. Answers with the number of those lost so far.
const CABLE: &str = "
import random, select, socket, subprocess, sys
print('begun')
sys.stdin.readline()
ends = []
for name in ('cable0', 'cable1'):
    subprocess.run(['ip', 'link', 'set', name, 'up'], check=True)
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    end.bind((name, 0))
    ends.append(end)
others = dict(zip(ends, reversed(ends)))
chance, loss, lost = random.Random(7), 0.0, 0
print('ready')
while True:
    for end in select.select(ends + [sys.stdin], [], [])[0]:
        if end is sys.stdin:
            line = sys.stdin.readline()
            if not line:
                sys.exit()
            loss = float(line)
            print(lost)
            continue
        frame, (_, _, kind, *_) = end.recvfrom(65536)
        if kind == socket.PACKET_OUTGOING:
            continue
        if frame[12:14] == b'\\x08\\x00' and frame[23] == socket.IPPROTO_UDP:
            if chance.random() < loss:
                lost += 1
                continue
            # The checksum was left to the interface; zero means none.
            at = 14 + 4 * (frame[14] & 15) + 6
            frame = frame[:at] + b'\\0\\0' + frame[at + 2:]
        others[end].send(frame)
";

/// The cable, and the network at its other end.
pub(crate) struct Cable {
    there: Process,
    cable: Process,
}

/// Runs `body` in a process with a network of its own. `test` is the full name of the test that calls this.
pub(crate) fn alone(test: &str, body: impl FnOnce(&mut Cable)) {
    if std::env::var_os(INSIDE).is_some() {
        body(&mut Cable::lay());
        println!("{DONE}");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net"]);
    command.arg(std::env::current_exe().unwrap());
    let mut process = reexec::Process::start_with(command, test, &[(INSIDE, "1")]);
    print!("{}", process.until(DONE));
    process.finish();
}

impl Cable {
    fn lay() -> Cable {
        let mut there = Command::new("unshare");
        there.args(["--net", "sh", "-c", "echo begun; exec cat"]);
        let mut cable = Command::new("unshare");
        let script = python(CABLE, "");
        cable.arg("--net").arg(script.get_program()).args(script.get_args());
        let mut this = Cable {
            there: Process::start(there),
            cable: Process::start(cable),
        };
        let ids = [&mut this.there, &mut this.cable].map(|process| {
            assert_eq!(process.line(), "begun");
            process.id()
        });
        for (end, outer, inner) in [("cable0", HERE, None), ("cable1", THERE, Some(ids[0]))] {
            ip(&format!("link add {outer} type veth peer name {end}"));
            ip(&format!("link set {end} netns {}", ids[1]));
            if let Some(id) = inner {
                ip(&format!("link set {outer} netns {id}"));
            }
        }
        ip("link set lo up");
        ip(&format!("address add {ADDRESS}/24 dev {HERE}"));
        ip(&format!("link set {HERE} up"));
        for args in [
            "link set lo up".to_owned(),
            format!("address add 10.9.9.2/24 dev {THERE}"),
            format!("link set {THERE} up"),
        ] {
            let mut there = Command::new("ip");
            there.args(args.split(' '));
            assert!(this.there(&there).status().unwrap().success(), "ip {args}");
        }
        this.cable.write("go\n");
        assert_eq!(this.cable.line(), "ready");
        this
    }

    /// The command in the network at the other end.
    pub(crate) fn there(&self, command: &Command) -> Command {
        let mut there = Command::new("nsenter");
        there.arg(format!("--net=/proc/{}/ns/net", self.there.id()));
        there.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => there.env(name, value),
                None => there.env_remove(name),
            };
        }
        there
    }

    /// From now on this part of the packets is lost. Returns the number of those lost before.
    pub(crate) fn lose(&mut self, part: f64) -> u64 {
        self.cable.write(&format!("{part}\n"));
        self.cable.line().parse().unwrap()
    }
}

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split(' ')).status();
    assert!(done.unwrap().success(), "ip {args}");
}
