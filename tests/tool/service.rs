//! A publisher service in adverse conditions: its socket is removed or replaced, users have no right to it.
#![cfg(target_os = "linux")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::{eventually, within};
use crate::host::{Host, json, serve, service, socket};
use crate::process::{End, Process, assert_fails, run, tablecast};
use nix::unistd::{Gid, Group, Uid};

const LIMIT: Duration = Duration::from_secs(60);

fn publish(socket: &Path, key: &str) -> Command {
    let mut command = crate::process::publish(["--table", "t", "--key", key, "--publisher-multiproc-socket"]);
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
        let mut writer = crate::process::publish(["--file", "-", "--publisher-multiproc-socket"]);
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

/// As the end of a user's session removes it: with its folder, and for some time with the folder's own.
#[test]
fn a_socket_whose_folder_was_removed_is_there_again() {
    within(2 * LIMIT, || {
        let root = tempfile::tempdir().unwrap();
        let session = root.path().join("session");
        let folder = session.join("tablecast");
        let path = socket(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o750)).unwrap();
        // Other users may give their own alone.
        let group = if Uid::effective().is_root() {
            STRANGER
        } else {
            Gid::effective().as_raw()
        };
        chown(&folder, None, Some(group)).unwrap();
        let (mut service, _) = serve(&path);
        for outage in 1..=2 {
            // In one step: the service would bind again in between.
            let gone = root.path().join(format!("gone-{outage}"));
            fs::rename(&session, &gone).unwrap();
            fs::remove_dir_all(&gone).unwrap();
            // Each outage is reported.
            eventually(LIMIT, || service.stderr().matches("No such file").count() == outage);
            fs::create_dir(&session).unwrap();
            eventually(LIMIT, || path.exists());
            let there = fs::metadata(&folder).unwrap();
            assert_eq!((there.gid(), there.mode() & 0o777), (group, 0o750));
            assert_eq!(run(publish(&path, "k")).code, Some(0));
        }
        service.signal("TERM");
        assert_eq!(service.end().code, Some(0));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
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

/// Checks what a writer says that could not send everything; the service, which was stopped, ends cleanly all the same.
#[track_caller]
fn assert_may_be_lost(mut host: Host, end: &End) {
    assert!(
        end.stderr.contains("linger_ms") && end.stderr.contains("may be lost"),
        "{end:?}"
    );
    host.service.signal("CONT");
    host.service.signal("TERM");
    assert_eq!(host.service.end().code, Some(0));
}

#[test]
fn a_writer_that_cannot_send_everything_says_so() {
    within(LIMIT, || {
        let host = Host::start();
        let mut watch = host.live_watch(&[]);
        let mut writer = host.publish(&["--file", "-", "--linger-ms", "1000"]);
        writer.write("{\"table\":\"t\",\"key\":\"first\"}\n");
        assert_eq!(json(&watch.line())["key"], "first");
        host.service.signal("STOP");
        let line = serde_json::json!({"table": "t", "key": "k", "value": "v".repeat(100_000)}).to_string() + "\n";
        for _ in 0..200 {
            writer.write(&line);
        }
        let end = writer.end();
        assert_eq!((end.code, end.stdout.len()), (Some(1), 1), "{end:?}");
        assert_may_be_lost(host, &end);
    });
}

/// The rows are stored.
#[test]
fn a_writer_of_rows_that_cannot_send_everything_says_so() {
    within(LIMIT, || {
        let host = Host::start();
        let mut watch = host.live_watch(&[]);
        let mut command = tablecast(["db", "write", "--file", "-", "--linger-ms", "1000", "--sqlite-path"]);
        command.arg(host.folder.path().join("rows.db"));
        command
            .arg("--publisher-multiproc-socket")
            .arg(socket(host.folder.path()));
        command.env("TABLECAST_SEND_TIMEOUT_MS", "20000");
        let mut writer = Process::start(command);
        let row = |key: usize, value: &str| {
            let row = serde_json::json!({"table": "t", "key": key.to_string(), "action": "create", "value": value});
            row.to_string() + "\n"
        };
        writer.write(&row(0, "v"));
        assert_eq!(json(&watch.line())["key"], "0");
        host.service.signal("STOP");
        // More than the connection holds.
        for key in 1..=200 {
            writer.write(&row(key, &"v".repeat(100_000)));
        }
        let end = writer.end();
        assert_eq!((end.code, end.stdout.len()), (Some(1), 201), "{end:?}");
        assert_may_be_lost(host, &end);
    });
}

/// A user, and a group, that own nothing.
const STRANGER: u32 = 65_534;

/// A copy of the tool that every user may run.
fn tool(folder: &Path) -> PathBuf {
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    let tool = folder.join("tablecast");
    fs::copy(env!("CARGO_BIN_EXE_tablecast"), &tool).unwrap();
    tool
}

/// A command of the tool as another user, in this group, since root has every right. Where the tests do not run as root, as
/// their user.
fn as_stranger(tool: &Path, group: u32, command: &Command) -> Command {
    let mut stranger = match Uid::effective().is_root() {
        true => Command::new("setpriv"),
        false => Command::new("env"),
    };
    if Uid::effective().is_root() {
        let (user, group) = (format!("--reuid={STRANGER}"), format!("--regid={group}"));
        stranger.args([&user, &group, "--clear-groups"]);
    }
    stranger.arg(tool).args(command.get_args().skip(2)).current_dir("/");
    stranger
}

fn assert_denied(end: &End) {
    assert_eq!(
        (end.code, &*end.stdout),
        (Some(1), &["published 0".to_owned()][..]),
        "{end:?}"
    );
    for word in ["denied: ", "the socket", "belongs to user", "publisher.sock"] {
        assert!(end.stderr.contains(word), "{word}: {end:?}");
    }
    assert!(!end.stderr.contains("running"), "{end:?}");
}

/// Root has every right, so as root the writer runs as another user.
#[test]
fn a_writer_without_a_right_is_told_so() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let tool = tool(folder.path());
        let path = socket(folder.path());
        let (_service, _) = serve(&path);
        fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
        let end = run(as_stranger(&tool, STRANGER, &publish(&path, "k")));
        assert_denied(&end);
        assert!(end.stderr.contains("mode 0"), "{end:?}");
    });
}

/// A service with these options for its socket.
fn opened(path: &Path, mode: &str, group: &str) -> Command {
    let mut command = service(path);
    command.args(["--publisher-multiproc-socket-mode", mode]);
    command.args(["--publisher-multiproc-socket-group", group]);
    command
}

#[test]
fn the_socket_is_open_to_the_group_that_the_options_name() {
    within(LIMIT, || {
        let is_root = Uid::effective().is_root();
        let folder = tempfile::tempdir().unwrap();
        let tool = tool(folder.path());
        let run_folder = tempfile::tempdir().unwrap();
        fs::set_permissions(run_folder.path(), Permissions::from_mode(0o755)).unwrap();
        let path = socket(run_folder.path());
        // A group of the system's, by name; other users may give their own alone.
        let group = if is_root { Gid::from_raw(1) } else { Gid::effective() };
        let name = Group::from_gid(group).unwrap().unwrap().name;
        let mut service = Process::start(opened(&path, "620", &name));
        let network = service.line().split(' ').nth(1).unwrap().to_owned();
        let mut watch = Process::start(tablecast(["watch", "--table", "w", "--publisher", &network]));
        watch.await_stderr("ready");
        watch.line();
        let check = || {
            let made = fs::metadata(&path).unwrap();
            assert_eq!((made.mode() & 0o777, made.gid()), (0o620, group.as_raw()));
            assert_eq!(
                fs::read_dir(run_folder.path()).unwrap().count(),
                2,
                "the socket and its lock"
            );
            if is_root {
                let member = run(as_stranger(&tool, group.as_raw(), &publish(&path, "k")));
                assert_eq!(member.code, Some(0), "{member:?}");
                assert_denied(&run(as_stranger(&tool, STRANGER, &publish(&path, "k"))));
            }
        };
        check();
        if !is_root {
            println!("no writers of other users and groups: only root can be them");
        }
        // Connected before the socket is removed.
        let mut writer = crate::process::publish(["--file", "-", "--publisher-multiproc-socket"]);
        writer.arg(&path);
        let mut writer = Process::start(writer);
        writer.write("{\"table\":\"w\",\"key\":\"a\"}\n");
        assert_eq!(json(&watch.line())["key"], "a");
        clean(run_folder.path());
        service.await_stderr("was removed by something else: bound again");
        check();
        writer.write("{\"table\":\"w\",\"key\":\"b\"}\n");
        assert_eq!(json(&watch.line())["key"], "b");
        writer.close_stdin();
        assert_eq!(writer.end().stdout, ["published 2"]);
        service.signal("TERM");
        assert_eq!(service.end().code, Some(0));
        assert_eq!(fs::read_dir(run_folder.path()).unwrap().count(), 0);
    });
}

#[test]
fn a_mode_or_group_that_cannot_be_given_is_named_at_the_start() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let tool = tool(folder.path());
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let path = socket(folder.path());
        let unknown = run(opened(&path, "660", "no-such-group"));
        assert_fails(&unknown, 2, &["publisher_multiproc_socket_group", "\"no-such-group\""]);
        for mode in ["888", "1777", "0x1ff", "+7"] {
            assert_eq!(run(opened(&path, mode, "")).code, Some(2), "{mode}");
        }
        // Its user is in no group but one.
        let foreign = run(as_stranger(&tool, STRANGER, &opened(&path, "660", "1")));
        assert_fails(&foreign, 1, &["publisher_multiproc_socket_group", "\"1\"", "may not"]);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left but the tool"
        );
    });
}

/// As a writer of another kind may do it: what cannot be passed on is logged by kind and number.
#[test]
fn what_is_not_passed_on_is_logged_now_and_then() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let path = socket(folder.path());
        let mut command = service(&path);
        command.args(["--max-message-bytes", "1000"]);
        let mut service = Process::start(command);
        let ready = service.line();
        let network = ready.split(' ').nth(1).unwrap();
        let mut watch = Process::start(tablecast(["watch", "--publisher", network, "--count", "1"]));
        watch.await_stderr("ready");
        let context = zmq::Context::new();
        let writer = context.socket(zmq::PUSH).unwrap();
        writer.connect(&format!("ipc://{}", path.display())).unwrap();
        let large = [b'x'; 2000];
        for _ in 0..500 {
            writer.send("one part", 0).unwrap();
            writer.send_multipart(["D".as_bytes(), &large], 0).unwrap();
        }
        let good = r#"{"table":"t","key":"k","action":"set","value":null,"topic":"D"}"#;
        writer.send_multipart(["D", good], 0).unwrap();
        assert_eq!(watch.end().code, Some(0));
        service.signal("TERM");
        let end = service.end();
        assert_eq!(end.code, Some(0));
        let reports = end.stderr.lines().filter_map(|line| line.split_once("not passed on: "));
        let reports: Vec<_> = reports.map(|(_, counts)| counts).collect();
        assert!(reports.len() <= 4, "{end:?}");
        let counted = |kind: &str| -> u32 {
            let counts = reports.iter().flat_map(|report| report.split(", "));
            let counts = counts.filter_map(|count| count.split_once(' '));
            counts
                .filter(|(_, what)| what.contains(kind))
                .map(|(count, _)| count.parse::<u32>().unwrap())
                .sum()
        };
        assert_eq!(
            (counted("malformed"), counted("max_message_bytes")),
            (500, 500),
            "{end:?}"
        );
    });
}
