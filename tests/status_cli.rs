//! Status updates by hand: `tablecast listen`, `notify` and `listeners`, and the README's deployment.
#![cfg(feature = "bin")]

mod common;
#[path = "common/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::within;
use process::{End, Process, run, tablecast};

const LIMIT: Duration = Duration::from_secs(120);

/// The command, in a network of processes that meet in the store of this folder.
fn meeting(folder: &Path, command: &str, args: &[&str]) -> Command {
    let store = folder.join("rows.db");
    let network = [
        command,
        "--sqlite-path",
        store.to_str().unwrap(),
        "--discover",
        "true",
        "--publisher-port",
        "0",
        "--discover-interval-ms",
        "100",
    ];
    // What only gives up when the time is over shall not make the test wait.
    tablecast(network.iter().chain(args))
}

fn listen(folder: &Path, id: &str) -> Process {
    let mut server = Process::start(meeting(folder, "listen", &["--no-multiproc", "--id", id]));
    server.await_stderr("ready");
    server
}

fn notify(folder: &Path, args: &[&str]) -> End {
    run(meeting(folder, "notify", &[&["--no-multiproc"], args].concat()))
}

fn key(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["event"], "update");
    assert_eq!(line["table"], "lport");
    line["key"].as_str().unwrap().to_owned()
}

#[test]
fn every_update_goes_to_one_server_also_when_the_other_is_killed() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let mut servers = ["a", "b"].map(|id| listen(folder.path(), id));
        let mut node = Process::start(meeting(folder.path(), "notify", &["--no-multiproc", "--file", "-"]));
        let lines: String = (0..40)
            .map(|n| format!("{{\"table\":\"lport\",\"key\":\"port-{n}\",\"value\":{{\"status\":\"up\"}}}}\n"))
            .collect();
        node.write(&lines);
        node.close_stdin();
        assert_eq!(node.line(), "acknowledged 40 of 40");
        assert_eq!(node.end().code, Some(0));

        let table = run(meeting(folder.path(), "listeners", &[])).stdout;
        assert!(table[0].starts_with("id "), "{table:?}");
        assert_eq!(table.iter().filter(|row| row.contains("alive")).count(), 2, "{table:?}");

        servers[0].kill();
        let end = notify(folder.path(), &["--table", "lport", "--key", "last", "--value", "{}"]);
        assert_eq!(
            (end.code, end.stdout),
            (Some(0), vec!["acknowledged 1 of 1".to_owned()])
        );
        servers[1].signal("TERM");
        let ends = servers.each_mut().map(Process::end);
        assert_eq!(ends[1].code, Some(0), "{ends:?}");
        let keys: Vec<Vec<String>> = ends
            .iter()
            .map(|end| end.stdout.iter().map(|line| key(line)).collect())
            .collect();
        assert_eq!(keys[1].last().map(String::as_str), Some("last"));
        // Dealt like cards.
        assert_eq!((keys[0].len(), keys[1].len()), (20, 21));
        assert_eq!(keys.iter().flatten().collect::<BTreeSet<_>>().len(), 41);

        // Who stops cleanly is not registered any more.
        let table = run(meeting(folder.path(), "listeners", &["--timeout", "0.3"])).stdout;
        assert!(!table.iter().any(|row| row.starts_with("b ")), "{table:?}");
    });
}

#[test]
fn without_a_promise_nothing_is_waited_for() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Process::start(meeting(folder.path(), "listen", &["--no-multiproc", "--count", "1"]));
        server.await_stderr("ready");
        let lines: String = (0..200)
            .map(|n| format!("{{\"table\":\"lport\",\"key\":\"port-{n}\"}}\n"))
            .collect();
        // The first ones may be sent before they are heard: that is what is not promised.
        while server.is_running() {
            let args = [
                "--no-multiproc",
                "--at-most-once",
                // The server may have gone meanwhile.
                "--timeout",
                "2",
                "--linger-ms",
                "500",
                "--file",
                "-",
            ];
            let mut node = Process::start(meeting(folder.path(), "notify", &args));
            node.write(&lines);
            node.close_stdin();
            let sent = node.end().stdout.concat();
            assert!(sent.starts_with("sent "), "{sent}");
        }
        let end = server.end();
        assert_eq!(end.code, Some(0), "{end:?}");
        assert!(key(&end.stdout[0]).starts_with("port-"));
    });
}

#[test]
fn what_nobody_takes_is_an_error() {
    within(LIMIT, || {
        let fails = |end: End, code: i32, text: &str| {
            assert_eq!(end.code, Some(code), "{end:?}");
            assert!(end.stderr.contains(text), "{text}: {end:?}");
        };
        let folder = tempfile::tempdir().unwrap();
        let update = ["--table", "lport", "--key", "port-1", "--timeout", "0.5"];
        fails(notify(folder.path(), &update), 1, "0 listeners are alive");
        let memory = [&update[..], &["--store", "memory"]].concat();
        fails(notify(folder.path(), &memory), 2, "choose sqlite or redis");
        let unheard = ["--no-multiproc", "--timeout", "0.5", "--count", "1"];
        fails(run(meeting(folder.path(), "listen", &unheard)), 1, "0 of 1 updates");

        // A server that is stopped answers nothing: what was not acknowledged is named.
        let server = listen(folder.path(), "a");
        server.signal("STOP");
        let update = ["--table", "lport", "--key", "port-1", "--timeout", "3"];
        fails(
            notify(folder.path(), &update),
            1,
            "not acknowledged: Action:set, Table:lport, Key:port-1",
        );
        server.signal("CONT");
    });
}

#[test]
fn the_deployment_of_the_readme() {
    within(LIMIT, || {
        let section = include_str!("../README.md")
            .split("### Two servers and three nodes")
            .nth(1)
            .unwrap();
        let script = section.split("```bash\n").nth(1).unwrap().split("```").next().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tool = Path::new(env!("CARGO_BIN_EXE_tablecast")).parent().unwrap();
        let path = format!("{}:{}", tool.display(), std::env::var("PATH").unwrap());
        // Nothing outlives it, whatever happens: all are of one process group.
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "60", "bash", "-euc", script]);
        command.env("PATH", path).env("TMPDIR", folder.path());
        let end = run(command);
        assert_eq!(end.code, Some(0), "{end:?}");
        let acknowledged = |text: &str| end.stdout.iter().filter(|line| *line == text).count();
        assert_eq!(acknowledged("acknowledged 20 of 20"), 3, "{end:?}");
        assert_eq!(acknowledged("acknowledged 1 of 1"), 1, "{end:?}");
        assert_eq!(acknowledged("60"), 1, "{end:?}");
        let alive = |id: &str| {
            let mut rows = end.stdout.iter();
            rows.any(|row| row.starts_with(id) && row.contains("alive"))
        };
        assert!(alive("server-1") && alive("server-2"), "{end:?}");
        assert!(key(end.stdout.last().unwrap()) == "node-1-port-1", "{end:?}");
    });
}
