//! Every example runs, succeeds, and shows its subject.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

mod common;
#[cfg(feature = "bin")]
#[path = "common/process.rs"]
mod process;

use common::within;

/// An example that `cargo test` has built beside this test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples").join(name)
}

fn run(name: &'static str) -> String {
    within(Duration::from_secs(60), move || {
        let example = example(name);
        let output = Command::new(&example)
            .output()
            .unwrap_or_else(|e| panic!("{}: {e}", example.display()));
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {text}{errors}", output.status);
        text
    })
}

#[test]
fn quick_start() {
    let text = run("quick_start");
    assert!(text.contains("Action:create, Table:lport, Key:port-1"), "{text}");
    assert!(text.contains("sync: connected"), "{text}");
}

#[test]
fn replica() {
    let text = run("replica");
    assert!(text.contains("port-1 moves from host1 to host2"), "{text}");
    assert!(text.contains("port-3 is gone"), "{text}");
    assert!(text.contains("host1: [\"port-2\"]\nhost2: [\"port-1\"]"), "{text}");
}

#[test]
fn typed_tables() {
    let text = run("typed_tables");
    assert!(text.contains("create of port-1 is on host1"), "{text}");
    assert!(
        text.contains("reported: malformed: table \"lport\" key \"port-2\""),
        "{text}"
    );
    assert!(text.contains("mismatches: 1"), "{text}");
}

#[test]
fn many_writers() {
    let text = run("many_writers");
    assert_eq!(text.matches(": 250").count(), 4, "{text}");
    // Updates of a burst share frames. In addition there are four goodbyes and perhaps some hellos.
    let forwarded = text.split("forwarded: ").nth(1).and_then(|rest| rest.split(',').next());
    assert!(forwarded.unwrap().parse::<u64>().unwrap() >= 8, "{text}");
}

#[test]
fn custom_driver() {
    let text = run("custom_driver");
    assert!(text.contains("Action:create, Table:lport, Key:port-1"), "{text}");
}

#[cfg(feature = "bin")]
#[test]
fn status_server_and_status_node() {
    within(Duration::from_secs(60), || {
        let folder = tempfile::tempdir().unwrap();
        let start = |name| {
            let mut command = Command::new(example(name));
            command.arg(folder.path());
            process::Process::start(command)
        };
        let mut servers = [(); 2].map(|()| start("status_server"));
        for server in &mut servers {
            assert_eq!(server.line(), "ready");
        }
        let node = start("status_node").end();
        assert_eq!(node.stdout, ["acknowledged: 20"], "{node:?}");
        // Closes the input.
        let ends = servers.each_mut().map(process::Process::end);
        assert!(ends.iter().all(|end| end.code == Some(0)), "{ends:?}");
        let mut lines: Vec<_> = ends.iter().flat_map(|end| &end.stdout).collect();
        let mut expected: Vec<_> = (1..=20).map(|port| format!("port-{port} is up")).collect();
        lines.sort();
        expected.sort();
        assert_eq!(lines, expected.iter().collect::<Vec<_>>());
    });
}
