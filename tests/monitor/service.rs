//! `tablecast service --monitor-tables`, as processes.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::common::{free_port, within};
use crate::host::{json, service, socket};
use crate::process::{Process, run, tablecast};

/// A service that monitors, and its line when it was ready.
fn serve(folder: &Path, port: &str) -> (Process, String) {
    let mut command = tablecast(["service", "--publisher-port", port, "--publisher-multiproc-socket"]);
    command.arg(socket(folder));
    command.args(["--monitor-tables", "lport, chassis", "--monitor-interval-ms", "20"]);
    command.args(["--reconnect-max-ms", "200", "--hello-interval-ms", "200"]);
    command.arg("--sqlite-path").arg(folder.join("rows.db"));
    let mut service = Process::start(command);
    let network = service.line().split(' ').nth(1).unwrap().to_owned();
    (service, network)
}

fn watch(network: &str) -> Process {
    let mut watch = Process::start(tablecast([
        "watch",
        "--publisher",
        network,
        "--topic",
        "D",
        "--topic",
        "tenant1",
        "--reconnect-max-ms",
        "200",
    ]));
    watch.await_stderr("ready");
    watch
}

/// Writes a row without publishing it.
fn db(folder: &Path, args: &[&str]) {
    let mut command = tablecast(["db"]);
    command.args(args).arg("--no-publish");
    command.arg("--sqlite-path").arg(folder.join("rows.db"));
    let end = run(command);
    assert_eq!(end.code, Some(0), "{end:?}");
}

/// The next update, and the reasons of the sync events before it.
fn next_update(watch: &mut Process) -> (Value, Vec<String>) {
    let mut reasons = Vec::new();
    loop {
        let event = json(&watch.line());
        match event["reason"].as_str() {
            Some(reason) => reasons.push(reason.to_owned()),
            None => return (event, reasons),
        }
    }
}

#[test]
fn the_service_tells_what_others_write() {
    within(Duration::from_secs(60), || {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (mut service, network) = serve(folder, &free_port().to_string());
        let mut watch = watch(&network);
        db(
            folder,
            &[
                "create", "--table", "lport", "--key", "port-1", "--value", "1", "--topic", "tenant1",
            ],
        );
        let (update, reasons) = next_update(&mut watch);
        let expected = r#"{"event":"update","table":"lport","key":"port-1","action":"create","value":"1","topic":"tenant1","priority":5,"version":1}"#;
        assert_eq!((update, reasons), (json(expected), vec!["connected".to_owned()]));
        db(folder, &["set", "--table", "lport", "--key", "port-1", "--value", "2"]);
        let (update, reasons) = next_update(&mut watch);
        assert_eq!(
            (update["action"].as_str(), update["version"].as_u64()),
            (Some("set"), Some(2))
        );
        assert!(reasons.is_empty(), "{reasons:?}");
        db(
            folder,
            &["create", "--table", "chassis", "--key", "host1", "--value", "1"],
        );
        let (update, reasons) = next_update(&mut watch);
        assert_eq!(
            (update["table"].as_str(), update["topic"].as_str()),
            (Some("chassis"), Some("D"))
        );
        assert!(reasons.is_empty(), "{reasons:?}");

        // Changes made while no service runs are published by the next one.
        service.signal("TERM");
        let end = service.end();
        assert_eq!((end.code, &*end.stderr), (Some(0), ""));
        db(folder, &["delete", "--table", "lport", "--key", "port-1"]);
        let port = network.rsplit(':').next().unwrap();
        let (mut service, _) = serve(folder, port);
        let (update, mut reasons) = next_update(&mut watch);
        let expected = r#"{"event":"update","table":"lport","key":"port-1","action":"delete","value":null,"topic":"tenant1","priority":5,"version":3}"#;
        assert_eq!(update, json(expected));
        // It comes at a random moment, so that not all programs read the store at once.
        while !reasons.contains(&"reconnected".to_owned()) {
            reasons.push(json(&watch.line())["reason"].as_str().unwrap().to_owned());
        }
        assert!(!reasons.contains(&"gap".to_owned()), "{reasons:?}");

        // The same after it was killed.
        service.kill();
        db(folder, &["delete", "--table", "chassis", "--key", "host1"]);
        let (_service, _) = serve(folder, port);
        let (mut update, mut reasons) = next_update(&mut watch);
        if update == json(expected) {
            // It was killed before it had stored that this was published.
            let more;
            (update, more) = next_update(&mut watch);
            reasons.extend(more);
        }
        assert_eq!(
            (update["table"].as_str(), update["action"].as_str()),
            (Some("chassis"), Some("delete"))
        );
        assert!(!reasons.contains(&"gap".to_owned()), "{reasons:?}");
    });
}

#[test]
fn a_wrong_option_is_told() {
    within(Duration::from_secs(60), || {
        let folder = tempfile::tempdir().unwrap();
        let mut command = service(&socket(folder.path()));
        command.args(["--monitor-tables", "lport", "--store", "nosuch"]);
        let end = run(command);
        assert_eq!(end.code, Some(2), "{end:?}");
        assert!(end.stderr.contains("nb_db_class") && end.stdout.is_empty(), "{end:?}");
    });
}
