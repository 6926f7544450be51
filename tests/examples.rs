//! Every example runs, ends with success, and shows what it is about.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

mod common;

use common::within;

/// Runs an example that `cargo test` has built beside this test.
fn run(name: &'static str) -> String {
    within(Duration::from_secs(60), move || {
        let test = std::env::current_exe().unwrap();
        let example: PathBuf = [
            test.parent().unwrap().parent().unwrap(),
            "examples".as_ref(),
            name.as_ref(),
        ]
        .iter()
        .collect();
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
fn typed_tables() {
    let text = run("typed_tables");
    assert!(text.contains("create of port-1 is on host1"), "{text}");
    assert!(
        text.contains("reported: malformed message: table lport key port-2"),
        "{text}"
    );
    assert!(text.contains("mismatches: 1"), "{text}");
}

#[test]
fn many_writers() {
    let text = run("many_writers");
    assert_eq!(text.matches(": 250").count(), 4, "{text}");
    // Besides the updates, four goodbyes and perhaps some hellos.
    let forwarded = text.split("forwarded: ").nth(1).and_then(|rest| rest.split(',').next());
    assert!(forwarded.unwrap().parse::<u64>().unwrap() >= 1004, "{text}");
}

#[test]
fn custom_driver() {
    let text = run("custom_driver");
    assert!(text.contains("Action:create, Table:lport, Key:port-1"), "{text}");
}
