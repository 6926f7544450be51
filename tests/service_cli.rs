//! A publisher service in adverse conditions: its socket is removed or replaced, users have no right to it, descriptors
//! are few.
#![cfg(all(feature = "bin", target_os = "linux"))]

mod common;
#[path = "common/host.rs"]
mod host;
#[path = "common/process.rs"]
mod process;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{eventually, within};
use host::{Host, json, serve, service, socket};
use process::{Process, assert_fails, run, tablecast};

const LIMIT: Duration = Duration::from_secs(60);

fn publish(socket: &Path, key: &str) -> Command {
    let mut command = tablecast(["publish", "--table", "t", "--key", key, "--publisher-multiproc-socket"]);
    command.arg(socket);
    command
}

/// Removes the files like a cleaner of temporary files.
fn clean(folder: &Path) {
    for file in fs::read_dir(folder).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
}

#[test]
fn a_socket_that_was_removed_is_there_again_and_who_was_connected_stays_so() {
    within(LIMIT, || {
        let mut host = Host::start();
        let mut watch = host.live_watch(&["--count", "4"]);
        let path = socket(host.folder.path());
        let mut writer = tablecast(["publish", "--file", "-", "--publisher-multiproc-socket"]);
        writer.arg(&path);
        let mut writer = Process::start(writer);
        let mut told = |key: &str| {
            writer.write(&format!("{{\"table\":\"t\",\"key\":\"{key}\"}}\n"));
            assert_eq!(json(&watch.line())["key"], key);
        };
        told("before");
        clean(host.folder.path());
        // Its connection stays.
        told("meanwhile");
        host.service.await_stderr("was removed by something else: bound again");
        told("after");
        assert_eq!(run(publish(&path, "new")).code, Some(0));
        assert_eq!(json(&watch.line())["key"], "new");
        assert_eq!(watch.end().code, Some(0));
        host.service.signal("TERM");
        assert_eq!(host.service.end().code, Some(0));
        assert_eq!(fs::read_dir(host.folder.path()).unwrap().count(), 0);
    });
}

#[test]
fn a_service_takes_no_place_from_its_successor() {
    within(LIMIT, || {
        let mut host = Host::start();
        let path = socket(host.folder.path());
        clean(host.folder.path());
        // Either may be first; the second leaves the first one alone.
        let mut successor = Process::start(service(&path));
        let mut is_refused = false;
        eventually(LIMIT, || {
            is_refused = !successor.is_running();
            is_refused || host.service.stderr().contains("another process serves this socket")
        });
        if !is_refused {
            host.service.signal("TERM");
            assert_eq!(host.service.end().code, Some(0));
            assert!(path.exists());
            assert!(successor.line().starts_with("ready"));
            assert_eq!(run(publish(&path, "k")).code, Some(0));
        } else {
            assert_fails(&successor.end(), 1, &["publisher.sock", "another process"]);
            assert_eq!(run(publish(&path, "k")).code, Some(0));
        }
    });
}

/// Root has every right, so as root the writer runs as another user.
#[test]
fn a_writer_without_a_right_is_told_so() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        open(folder.path(), 0o755);
        let path = socket(folder.path());
        let (_service, _) = serve(&path);
        open(&path, 0o000);
        let tool = folder.path().join("tablecast");
        fs::copy(env!("CARGO_BIN_EXE_tablecast"), &tool).unwrap();
        let publish = || {
            let mut command = Command::new("sh");
            let other = "if [ $(id -u) = 0 ]; then exec setpriv --reuid 65534 --clear-groups \"$0\" \"$@\"; fi; exec \"$0\" \"$@\"";
            command.args(["-c", other]).arg(&tool);
            command.args(publish(&path, "k").get_args().skip(2));
            command.current_dir(folder.path());
            run(command)
        };
        let end = publish();
        assert_eq!(
            (end.code, &*end.stdout),
            (Some(1), &["published 0".to_owned()][..]),
            "{end:?}"
        );
        for word in [
            "permission denied",
            "the socket",
            "belongs to user",
            "mode 0",
            "publisher.sock",
        ] {
            assert!(end.stderr.contains(word), "{word}: {end:?}");
        }
        assert!(!end.stderr.contains("running"), "{end:?}");
    });
}

#[test]
fn the_limit_of_open_files_is_as_high_as_it_may_be() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let tool = service(&socket(folder.path()));
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -Sn 128; exec \"$0\" \"$@\""]);
        command.arg(tool.get_program()).args(tool.get_args());
        let mut service = Process::start(command);
        assert!(service.line().starts_with("ready"));
        let limits = fs::read_to_string(format!("/proc/{}/limits", service.id())).unwrap();
        let files = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .unwrap();
        let files: Vec<_> = files.split_whitespace().collect();
        assert_eq!(files[0], files[1], "{limits}");
        assert_ne!(files[0], "128");
    });
}
