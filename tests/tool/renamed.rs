//! A host that is renamed, and a container that has another name at each start.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{eventually, skip, within};
use crate::host::{json, socket};
use crate::process::{LIMIT, Process, tablecast};
use tablecast::Store;
use tablecast::registry::PUBLISHERS;
use tablecast::store::{StoreOptions, Write};
use tablecast::stores::sqlite::SqliteStore;
use tablecast::update::Topic;

/// Gives the host a name, and another one once a file asks for that.
const NAMED: &str = r#"
set -e
folder=$1 name=$2
shift 2
hostname "$name"
(until [ -e "$folder/rename" ]; do sleep 0.02; done; hostname renamed) </dev/null >/dev/null 2>&1 &
exec "$@"
"#;

/// A service that is alone with its host name, over the database of the folder; `None` where there are no namespaces.
fn service(folder: &Path, name: &str, args: &[&str]) -> Option<Process> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--uts"]);
        command
    };
    let trial = unshare().arg("true").output().unwrap();
    if !trial.status.success() {
        skip(format!(
            "no namespaces here: {}",
            String::from_utf8_lossy(&trial.stderr)
        ));
        return None;
    }
    let mut command = unshare();
    // The other shell of the script ends with the service.
    command
        .args(["--pid", "--fork", "--kill-child", "sh", "-c", NAMED, "sh"])
        .arg(folder)
        .arg(name);
    let mut service = tablecast(["service", "--publisher-port", "0", "--publisher-multiproc-socket"]);
    service
        .arg(socket(folder))
        .arg("--sqlite-path")
        .arg(folder.join("rows.db"))
        .args(args);
    command.arg(service.get_program()).args(service.get_args());
    Some(Process::start(command))
}

fn network(service: &mut Process) -> String {
    let ready = service.line();
    ready.split(' ').nth(1).unwrap().to_owned()
}

/// Stops the service: process 1 of its namespace.
fn stop(mut service: Process) {
    let children = format!("/proc/{0}/task/{0}/children", service.id());
    let init = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    crate::common::signal(init, "TERM");
    let end = service.end();
    assert_eq!(end.code, Some(0), "{end:?}");
}

fn store(folder: &Path) -> SqliteStore {
    SqliteStore::open(folder.join("rows.db"), StoreOptions::default()).unwrap()
}

#[test]
fn a_renamed_host_registers_its_new_name() {
    within(2 * LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let args = [
            "--discover",
            "true",
            "--publisher-bind-address",
            "*",
            "--publisher-timeout-ms",
            "900",
        ];
        let Some(mut service) = service(folder.path(), "first", &args) else {
            return;
        };
        let network = network(&mut service);
        let port = network.rsplit(':').next().unwrap();
        let store = store(folder.path());
        let is_at = |host: &str| {
            let rows = store.entries(PUBLISHERS, None).collect::<Result<Vec<_>, _>>();
            let address = format!("\"tcp://{host}:{port}\"");
            rows.is_ok_and(|rows| matches!(&rows[..], [row] if row.value.contains(&address)))
        };
        eventually(LIMIT, || is_at("first"));
        fs::write(folder.path().join("rename"), "").unwrap();
        eventually(LIMIT, || is_at("renamed"));
        stop(service);
    });
}

#[test]
fn a_monitor_remembers_under_whatever_name() {
    within(3 * LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let args = [
            "-v",
            "--monitor-tables",
            "t",
            "--monitor-interval-ms",
            "20",
            "--reconnect-max-ms",
            "2000",
            "--hello-interval-ms",
            "500",
        ];
        let store = store(folder.path());
        for key in ["a", "b"] {
            store.write(&Write::create("t", key, "1")).unwrap();
        }
        let Some(mut first) = service(folder.path(), "first", &args) else {
            return;
        };
        network(&mut first);
        first.await_stderr("the monitor of table \"t\" had no memory under the id \"ipc://");
        stop(first);
        store.delete("t", "b").unwrap();
        let mut second = service(folder.path(), "second", &args).unwrap();
        let network = network(&mut second);
        let mut watch = Process::start(tablecast(["watch", "--publisher", &network]));
        watch.await_stderr("ready");
        store.create("t", "c", "1", &Topic::ALL).unwrap();
        let mut next = || {
            let line = std::iter::repeat_with(|| json(&watch.line())).find(|line| line["event"] == "update");
            let line = line.unwrap();
            (line["action"].clone(), line["key"].clone())
        };
        assert_eq!(next(), ("create".into(), "c".into()), "nothing is published again");
        assert_eq!(next(), ("delete".into(), "b".into()));
        assert!(!second.stderr().contains("no memory"), "{}", second.stderr());
        stop(second);
    });
}
