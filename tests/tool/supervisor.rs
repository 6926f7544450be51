//! The tool under a service manager, and where a container puts it.
#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{eventually, folder_for_system, skip, within};
use crate::host::{Host, service, socket};
use crate::process::{LIMIT, Process, run, tablecast};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A service manager, for one command.
pub(crate) struct Manager {
    socket: UnixDatagram,
    name: OsString,
}

impl Manager {
    pub(crate) fn at_path(folder: &Path) -> Manager {
        let path = folder.join("notify");
        Manager::bind(&SocketAddr::from_pathname(&path).unwrap(), path.into())
    }

    /// With a socket that is in no file system.
    fn abstract_for(folder: &Path) -> Manager {
        let name = format!("tablecast-test{}", folder.display());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Manager::bind(&address, format!("@{name}").into())
    }

    fn bind(address: &SocketAddr, name: OsString) -> Manager {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Manager { socket, name }
    }

    /// Starts the command; with `watchdog` it has to give signs of life.
    pub(crate) fn start(&self, mut command: Command, watchdog: Option<Duration>) -> Process {
        command.env("NOTIFY_SOCKET", &self.name);
        if let Some(time) = watchdog {
            command.env("WATCHDOG_USEC", time.as_micros().to_string());
        }
        Process::start(command)
    }

    /// The next message.
    pub(crate) fn next(&self) -> String {
        let mut message = [0; 256];
        let length = self.socket.recv(&mut message).expect("no message came");
        str::from_utf8(&message[..length]).unwrap().trim_end().to_owned()
    }

    /// The next message that is no sign of life.
    fn next_word(&self) -> String {
        std::iter::repeat_with(|| self.next())
            .find(|message| message != "WATCHDOG=1")
            .unwrap()
    }

    /// Nothing has come that was not read.
    fn is_silent(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let is_silent = self.socket.recv(&mut [0; 256]).is_err();
        self.socket.set_nonblocking(false).unwrap();
        is_silent
    }

    /// The command is ready and stops, and says so.
    pub(crate) fn stop(&self, mut process: Process) {
        process.signal("TERM");
        assert_eq!(self.next_word(), "STOPPING=1");
        assert_eq!(process.end().code, Some(0));
    }
}

#[test]
fn a_service_notifies_its_manager_of_readiness_life_and_the_end() {
    within(3 * LIMIT, || {
        for bind in [Manager::at_path, Manager::abstract_for] {
            let folder = tempfile::tempdir().unwrap();
            let manager = bind(folder.path());
            let watchdog = Duration::from_secs(4);
            let mut service = manager.start(service(&socket(folder.path())), Some(watchdog));
            assert_eq!(manager.next(), "READY=1");
            assert!(service.line().starts_with("ready"));
            for _ in 0..3 {
                let start = Instant::now();
                assert_eq!(manager.next(), "WATCHDOG=1");
                assert!(start.elapsed() < watchdog, "it would have been ended");
            }
            manager.stop(service);
        }
    });
}

#[test]
fn a_manager_that_begins_anew_is_notified() {
    within(3 * LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let manager = Manager::at_path(folder.path());
        let mut command = service(&socket(folder.path()));
        command.arg("-v");
        let mut service = manager.start(command, Some(Duration::from_millis(400)));
        assert_eq!(manager.next(), "READY=1");
        for outage in 1..=2 {
            fs::remove_file(folder.path().join("notify")).unwrap();
            let mut lost = || service.stderr().matches("cannot reach the service manager").count();
            eventually(LIMIT, || lost() == outage);
            let manager = Manager::at_path(folder.path());
            for _ in 0..5 {
                assert_eq!(manager.next(), "WATCHDOG=1");
            }
            // Each outage is reported once.
            assert_eq!(lost(), outage);
        }
        service.signal("TERM");
        assert_eq!(service.end().code, Some(0));
    });
}

/// systemd's set `@system-service` lacks what refuses single connections and sets keepalive.
#[test]
fn the_units_allow_what_their_commands_need() {
    let unit = include_str!("../../contrib/systemd/tablecast.service");
    let replica = include_str!("../../contrib/systemd/tablecast-replica@.service");
    for unit in [unit, replica] {
        let lines = |name: &str| -> Vec<&str> { unit.lines().filter_map(|line| line.strip_prefix(name)).collect() };
        let calls = lines("SystemCallFilter=").join(" ");
        assert!(calls.split(' ').any(|call| call == "pidfd_getfd"), "{calls}");
        assert_eq!(lines("StartLimitIntervalSec="), ["0"]);
        assert_eq!(lines("RestartPreventExitStatus="), ["2"]);
    }
    // Both are confined alike.
    let confined = |unit: &'static str| {
        let lines = unit.lines().skip_while(|line| !line.starts_with("ProtectSystem="));
        lines.filter(|line| !line.starts_with('#')).collect::<Vec<_>>()
    };
    assert_eq!(confined(unit), confined(replica));
    assert!(confined(unit).len() > 20);
}

/// Its unit is started at once, and watched from then on.
#[test]
#[cfg(feature = "redis")]
fn a_replica_gives_signs_of_life_before_it_is_ready() {
    within(2 * LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let manager = Manager::at_path(folder.path());
        let away = ["--store", "redis", "--remote-db-hosts", "127.0.0.1:1"];
        let mut command = tablecast(["replica", "--table", "t"]);
        command.args(away);
        let replica = manager.start(command, Some(Duration::from_secs(2)));
        for _ in 0..3 {
            assert_eq!(manager.next(), "WATCHDOG=1");
        }
        manager.stop(replica);
    });
}

#[test]
fn no_sign_of_life_is_given_that_is_not_asked_for() {
    within(2 * LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let manager = Manager::at_path(folder.path());
        let path = socket(folder.path());
        let mut command = service(&path);
        // Of the process that has started it.
        command.env("WATCHDOG_PID", std::process::id().to_string());
        let service = manager.start(command, Some(Duration::from_millis(4)));
        assert_eq!(manager.next(), "READY=1");
        for key in ["a", "b", "c"] {
            let mut publish = crate::process::publish(["--table", "t", "--key", key, "--publisher-multiproc-socket"]);
            publish.arg(&path);
            assert_eq!(run(publish).code, Some(0));
        }
        assert!(manager.is_silent());
        manager.stop(service);
        // A manager that is gone hinders nothing.
        drop(manager);
        fs::remove_file(folder.path().join("notify")).unwrap();
        let mut command = self::service(&path);
        command.env("NOTIFY_SOCKET", folder.path().join("notify"));
        let mut service = Process::start(command);
        assert!(service.line().starts_with("ready"));
        service.await_stderr("cannot reach the service manager");
        service.signal("TERM");
        assert_eq!(service.end().code, Some(0));
    });
}

#[test]
fn other_commands_are_ready_when_they_do_what_they_are_there_for() {
    within(4 * LIMIT, || {
        let host = Host::start();
        let folder = tempfile::tempdir().unwrap();
        let rows = folder.path().join("rows.db");
        let rows = rows.to_str().unwrap();
        // It accepts connections, and speaks no ZeroMQ.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = format!("tcp://{}", silent.local_addr().unwrap());
        let manager = Manager::at_path(folder.path());
        let mut waiting = manager.start(tablecast(["watch", "--publisher", &silent]), None);
        waiting.await_stderr("no connection yet");
        assert!(manager.is_silent());
        manager.stop(waiting);
        let network = host.network.as_str();
        let commands: [&[&str]; 3] = [
            &["watch", "--publisher", network],
            &["replica", "--table", "t", "--sqlite-path", rows, "--publisher", network],
            &[
                "listen",
                "--no-multiproc",
                "--publisher-port",
                "0",
                "--discover",
                "true",
                "--sqlite-path",
                rows,
            ],
        ];
        for command in commands {
            let process = manager.start(tablecast(command), Some(Duration::from_secs(2)));
            assert_eq!(manager.next_word(), "READY=1", "{command:?}");
            let sign = std::iter::repeat_with(|| manager.next()).find(|message| message != "READY=1");
            assert_eq!(sign.unwrap(), "WATCHDOG=1", "{command:?}");
            manager.stop(process);
        }
    });
}

/// A container: the service is process 1, without rights, in a network with IPv6 alone, without devices, and in a system of
/// which one folder can be written. Beside it runs a watch. Its host name changes once a file asks for that.
const CONTAINER: &str = r#"
set -e
PATH=$PATH:/usr/sbin:/sbin
folder=$1 tool=$2
ip link set lo up
ip address del 127.0.0.1/8 dev lo
mount --bind "$folder" "$folder"
mount -o remount,bind,ro /
(exec "$tool" watch --publisher 'tcp://[::1]:8866' --count 2 >"$folder/watched") &
(: >"$folder/begun"; until [ -e "$folder/rename" ]; do sleep 0.02; done; hostname renamed && hostname >"$folder/renamed") &
# The shell opens /dev/null for both.
until [ -e "$folder/watched" ] && [ -e "$folder/begun" ]; do sleep 0.02; done
mount -t tmpfs none /dev
exec unshare --user --map-user=1000 --map-group=1000 "$tool" service --publisher-bind-address ::1 \
    --publisher-multiproc-socket "$folder/run/publisher.sock"
"#;

/// Process 1 of a container; it takes all others with it.
struct Init(Pid);

impl Drop for Init {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

#[test]
fn a_service_runs_as_process_1_of_a_container() {
    within(3 * LIMIT, || {
        let container = || {
            let mut unshare = Command::new("unshare");
            unshare.args(["--map-root-user", "--mount", "--net", "--pid", "--uts", "--fork"]);
            unshare
        };
        let mut trial = container();
        let trial = trial
            .args(["unshare", "--user", "--map-user=1000", "true"])
            .output()
            .unwrap();
        if !trial.status.success() {
            skip(format!(
                "no namespaces here: {}",
                String::from_utf8_lossy(&trial.stderr)
            ));
            return;
        }
        let folder = folder_for_system();
        let mut command = container();
        command.args(["sh", "-c", CONTAINER, "sh"]).arg(folder.path());
        command.arg(env!("CARGO_BIN_EXE_tablecast"));
        let mut container = Process::start(command);
        let path = folder.path().join("run/publisher.sock");
        assert_eq!(
            container.line(),
            format!("ready tcp://[::1]:8866 ipc://{}", path.display())
        );
        let children = format!("/proc/{0}/task/{0}/children", container.id());
        let init = fs::read_to_string(children).unwrap();
        let init = Init(Pid::from_raw(init.trim().parse().unwrap()));
        let status = fs::read_to_string(format!("/proc/{}/status", init.0)).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().last().unwrap().to_owned()
        };
        assert_eq!(field("NSpid:"), "1");
        assert_eq!(field("CapEff:"), "0000000000000000");
        // Its socket is in a folder that both see.
        let publish = |key: &str| {
            let mut publish = crate::process::publish(["--table", "t", "--key", key, "--publisher-multiproc-socket"]);
            publish.arg(&path);
            run(publish).code
        };
        let watched = || fs::read_to_string(folder.path().join("watched")).unwrap_or_default();
        container.await_stderr("ready");
        assert_eq!(publish("k"), Some(0));
        eventually(LIMIT, || watched().contains(r#""key":"k""#));
        fs::write(folder.path().join("rename"), "").unwrap();
        let renamed = || fs::read_to_string(folder.path().join("renamed")).unwrap_or_default();
        eventually(LIMIT, || renamed().trim() == "renamed");
        assert_eq!(publish("l"), Some(0));
        eventually(LIMIT, || watched().contains(r#""key":"l""#));
        // The watch has ended, beside process 1.
        assert_eq!(publish("m"), Some(0));
        kill(init.0, Signal::SIGTERM).unwrap();
        assert_eq!(container.end().code, Some(0), "{}", container.stderr());
        assert!(!path.exists());
    });
}
