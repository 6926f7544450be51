//! `tablecast replica`, and `db --wait`, driven by other programs.

use std::io::{self, BufRead};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use crate::common::{eventually, within};
use crate::host::{Host, json, socket};
use crate::process::{End, LIMIT, Process, run, run_unread, tablecast};
use crossbeam_channel::bounded;
use rusqlite::Connection;
use serde_json::{Value, json};
use tablecast::drivers::zmq::{ZmqMultiproc, ZmqOptions};
use tablecast::store::{StoreOptions, Write};
use tablecast::stores::sqlite::SqliteStore;
use tablecast::{Database, DatabaseOptions, Publisher, PublisherOptions, Store, Topic};

/// The database of a host, and replicas of it.
struct Rows<'a>(&'a Host);

impl Rows<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = tablecast(args);
        command.arg("--sqlite-path").arg(self.0.folder.path().join("rows.db"));
        command
            .arg("--publisher-multiproc-socket")
            .arg(socket(self.0.folder.path()));
        command.envs([
            ("TABLECAST_SEND_TIMEOUT_MS", "20000"),
            ("TABLECAST_STORE_TIMEOUT_MS", "20000"),
        ]);
        command
    }

    fn db(&self, args: &[&str]) -> End {
        run(self.command(&[&["db"], args].concat()))
    }

    fn create(&self, key: &str) {
        let end = self.db(&["create", "--table", "t", "--key", key, "--value", "1"]);
        assert_eq!(end.code, Some(0), "{}", end.stderr);
    }

    fn replica(&self, args: &[&str]) -> Command {
        let args = [&["replica", "--table", "t", "--publisher", &self.0.network], args].concat();
        self.command(&args)
    }

    /// A synced replica that a writer can wait for.
    fn synced(&self, id: &str) -> Process {
        self.until_registered(id, Process::start(self.replica(&["--id", id])))
    }

    /// The replica, once a writer would wait for it.
    fn until_registered(&self, id: &str, mut replica: Process) -> Process {
        while json(&replica.line())["event"] != "synced" {}
        let store = SqliteStore::open(self.0.folder.path().join("rows.db"), StoreOptions::default()).unwrap();
        let has_table = || {
            store
                .get("replica", id, None)
                .is_ok_and(|row| row.value.contains(r#"[\"t\"]"#))
        };
        eventually(LIMIT, has_table);
        replica
    }
}

fn line(event: &str, key: &str, value: Value, old: Value, version: u64) -> Value {
    json!({"event": event, "table": "t", "key": key, "value": value, "old": old, "version": version, "topic": "D"})
}

#[test]
fn a_replica_prints_what_there_is_and_what_changes() {
    within(3 * LIMIT, || {
        let host = Host::start();
        let rows = Rows(&host);
        rows.create("a");
        let mut replica = Process::start(rows.replica(&["--count", "4"]));
        assert_eq!(json(&replica.line()), line("added", "a", json!("1"), Value::Null, 1));
        assert_eq!(json(&replica.line()), json!({"event": "synced", "rows": 1}));
        rows.create("b");
        assert_eq!(json(&replica.line()), line("added", "b", json!("1"), Value::Null, 2));
        // Stored without an update: found by the next check.
        let silent = ["set", "--table", "t", "--key", "b", "--value", "2", "--no-publish"];
        assert_eq!(rows.db(&silent).code, Some(0));
        assert_eq!(json(&replica.line()), line("changed", "b", json!("2"), json!("1"), 3));
        assert_eq!(rows.db(&["delete", "--table", "t", "--key", "a"]).code, Some(0));
        assert_eq!(json(&replica.line()), line("removed", "a", Value::Null, json!("1"), 4));
        assert_eq!(replica.end().code, Some(0));
    });
}

#[test]
fn once_prints_the_rows_and_check_the_differences() {
    within(3 * LIMIT, || {
        let host = Host::start();
        let rows = Rows(&host);
        for key in ["a", "b"] {
            rows.create(key);
        }
        let end = run(rows.replica(&["--once", "--topic", "D", "--topic", "other"]));
        let printed: Vec<_> = end.stdout.iter().map(|line| json(line)["event"].clone()).collect();
        assert_eq!(
            (end.code, printed),
            (Some(0), vec![json!("added"), json!("added"), json!("synced")])
        );
        // A table that is named twice is held once.
        let end = run(rows.replica(&["--once", "--table", "t"]));
        assert_eq!((end.code, end.stdout.len()), (Some(0), 3), "{}", end.stderr);
        assert_eq!(end.stdout[2], r#"{"event":"synced","rows":2}"#);
        let end = run(rows.replica(&["--check"]));
        assert_eq!((end.code, end.stdout), (Some(0), Vec::new()), "{}", end.stderr);
        let end = run(rows.replica(&["--once", "--topic", "none"]));
        assert_eq!(end.stdout, [r#"{"event":"synced","rows":0}"#]);
        let place = host.folder.path().join("rows.db").display().to_string();
        assert!(
            end.stderr
                .contains(r#"no row of table "t" with topic "none" in the file"#)
                && end.stderr.contains(&place),
            "{}",
            end.stderr
        );
        // A table that is misspelled is named beside the others.
        let end = run(rows.replica(&["--table", "tt", "--once"]));
        assert_eq!((end.code, end.stdout.len()), (Some(0), 3), "{}", end.stderr);
        assert!(
            end.stderr
                .contains(r#"no row of table "tt" with topic "D" in the file"#),
            "{}",
            end.stderr
        );
        let end = run(rows.replica(&["--table", "tt", "--check"]));
        assert_eq!((end.code, end.stdout.len()), (Some(0), 0), "{}", end.stderr);
        assert!(
            end.stderr
                .contains(r#"no row of table "tt" with topic "D" in the file"#),
            "{}",
            end.stderr
        );
        let end = run(rows.replica(&["--count", "9", "--timeout", "1"]));
        assert_eq!(end.code, Some(1));
        assert!(end.stderr.contains("9 changes"), "{}", end.stderr);
        assert_eq!(run(rows.replica(&["--once", "--count", "1"])).code, Some(2));
    });
}

/// More changes come during a comparison than wait to be printed. A signal ends it. A row that was altered behind the
/// store's back is printed.
#[test]
fn a_table_that_is_being_written_is_compared() {
    within(4 * LIMIT, || {
        let host = Host::start();
        let rows = Rows(&host);
        let store = SqliteStore::open(host.folder.path().join("rows.db"), StoreOptions::default()).unwrap();
        let keys: Vec<_> = (0..20_000).map(|key| key.to_string()).collect();
        let value = |number: usize| format!("{number:01000}");
        for key in &keys {
            store.create("t", key, &value(0), &Topic::ALL).unwrap();
        }
        let (stop, stopped) = bounded::<()>(0);
        let write = || {
            for (number, key) in keys.iter().cycle().enumerate() {
                if stopped.try_recv().is_err_and(|e| e.is_disconnected()) {
                    return;
                }
                store.set("t", key, &value(number)).unwrap();
            }
        };
        let comparing = |id: u32| {
            let id = id.to_string();
            let mut command = rows.replica(&["--check", "--id", &id]);
            // So that its row soon says that all rows are there.
            command.env("TABLECAST_PUBLISHER_TIMEOUT_MS", "100");
            let mut comparing = Process::start(command);
            let row = || store.get("replica", &id, None).map_or(String::new(), |row| row.value);
            let is_comparing = |row: &str| row.contains("staleness_ms") && !row.contains("null");
            eventually(LIMIT, || !comparing.is_running() || is_comparing(&row()));
            comparing
        };
        let interrupted = |id: u32| {
            let mut comparing = comparing(id);
            if comparing.is_running() {
                comparing.signal("TERM");
            }
            comparing.end()
        };
        let (end, ended) = thread::scope(|scope| {
            scope.spawn(write);
            let end = run(rows.replica(&["--check", "--timeout", "30"]));
            // One may be done before the signal comes.
            let ended = (0..20).map(interrupted).find(|end| end.code != Some(0));
            drop(stop);
            (end, ended.expect("a comparison that a signal has ended"))
        });
        assert_eq!((end.code, end.stdout), (Some(0), Vec::new()), "{}", end.stderr);
        assert_eq!((ended.code, ended.stdout), (Some(1), Vec::new()), "{}", ended.stderr);
        assert!(ended.stderr.contains("a signal came"), "{}", ended.stderr);
        let file = Connection::open(host.folder.path().join("rows.db")).unwrap();
        file.busy_timeout(LIMIT).unwrap();
        // The row may be compared before it is altered.
        let altered = |id: u32| {
            let mut comparing = comparing(id);
            let alter = "UPDATE entries SET value = ?1 WHERE key = '9999'";
            assert_eq!(file.execute(alter, [value(id as usize)]).unwrap(), 1);
            comparing.end()
        };
        let end = (20..40).map(altered).find(|end| end.code != Some(0)).unwrap();
        let version = store.get("t", "9999", None).unwrap().version;
        let line = json!({"event": "difference", "table": "t", "key": "9999", "held": version, "stored": version});
        assert_eq!((end.code, end.stdout.len()), (Some(1), 1), "{}", end.stderr);
        assert_eq!(json(&end.stdout[0]), line);
        assert!(end.stderr.contains("differ from the store: 1"), "{}", end.stderr);
    });
}

/// A stopped replica is named, and not waited for longer than asked.
#[test]
fn a_writer_waits_for_the_replicas_that_are_there() {
    within(4 * LIMIT, || {
        let host = Host::start();
        let rows = Rows(&host);
        rows.create("a");
        let setting = |value: &str, wait: &str| {
            rows.command(&[
                "db", "set", "--table", "t", "--key", "a", "--value", value, "--wait", wait,
            ])
        };
        let set = |value: &str, wait: &str| run(setting(value, wait));
        assert_eq!(set("2", "1").stdout, ["set version 2", "applied by 0 of 0 replicas"]);
        let (mut one, two) = (rows.synced("one"), rows.synced("two"));
        let end = set("3", "20");
        assert_eq!(
            end.stdout,
            ["set version 3", "applied by 2 of 2 replicas"],
            "{}",
            end.stderr
        );
        assert_eq!(end.code, Some(0));
        // It was applied before the writer's success.
        assert_eq!(json(&one.line())["value"], "3");
        two.signal("STOP");
        let end = set("4", "5");
        let unread = run_unread(setting("4", "1"));
        two.signal("CONT");
        assert_eq!((end.code, &*end.stdout[1]), (Some(1), "applied by 1 of 2 replicas"));
        assert!(end.stderr.contains("no answer within 5s from two"), "{}", end.stderr);
        assert_eq!(
            (unread.code, unread.stderr.contains("two")),
            (Some(1), true),
            "{unread:?}"
        );
        // A replica that has ended is not missed; nor is one of another table.
        one.signal("TERM");
        assert_eq!(one.end().code, Some(0));
        let end = set("5", "20");
        assert_eq!(end.stdout[1], "applied by 1 of 1 replicas", "{}", end.stderr);
        let other = rows.db(&["create", "--table", "u", "--key", "a", "--value", "1", "--wait", "1"]);
        assert_eq!(other.stdout[1], "applied by 0 of 0 replicas");
        let delete = rows.db(&["delete", "--table", "t", "--key", "a", "--wait", "20"]);
        assert_eq!(delete.stdout, ["deleted version 6", "applied by 1 of 1 replicas"]);
        let silent = [
            "create",
            "--table",
            "t",
            "--key",
            "b",
            "--value",
            "1",
            "--wait",
            "1",
            "--no-publish",
        ];
        assert_eq!(rows.db(&silent).code, Some(2));
    });
}

/// The rows are there all the same, however fast others change them and however slowly the output is read.
#[test]
fn once_ends_while_rows_change_faster_than_they_are_printed() {
    const ROWS: usize = 2_000;
    // It prints up to 1,024 changes at a time, and looks whether all rows are there after half of these times.
    const LINES: usize = ROWS + 40 * 1_024;
    within(4 * LIMIT, || {
        let host = Host::start();
        let rows = Rows(&host);
        let store = SqliteStore::open(host.folder.path().join("rows.db"), StoreOptions::default()).unwrap();
        let keys: Vec<_> = (0..ROWS).map(|key| key.to_string()).collect();
        let value = "x".repeat(1_000);
        for key in &keys {
            store.create("t", key, &value, &Topic::ALL).unwrap();
        }
        let address = format!("ipc://{}", socket(host.folder.path()).display());
        let driver = ZmqMultiproc::new(&address, ZmqOptions::default()).unwrap();
        let publisher = Publisher::new(&driver, PublisherOptions::default()).unwrap();
        let database = Database::new(Arc::new(store), publisher, DatabaseOptions::default());
        let (output, pipe) = io::pipe().unwrap();
        let mut replica = Process::start_writing(rows.replica(&["--once"]), pipe);
        let mut changed = keys.iter().cycle();
        let lines = io::BufReader::new(output).lines().map(Result::unwrap);
        // What waits to be printed has no end, but the rows have.
        let is_synced = |(number, line): (usize, String)| {
            if number > ROWS / 2 {
                for key in changed.by_ref().take(3) {
                    database.write(&Write::set("t", key, &value), 5).unwrap();
                }
            }
            json(&line)["event"] == "synced"
        };
        assert!(lines.take(LINES).enumerate().any(is_synced));
        assert_eq!(replica.end().code, Some(0));
    });
}

/// The change is stored and published by then.
#[test]
fn a_signal_ends_a_wait_for_replicas() {
    within(3 * LIMIT, || {
        let host = Host::start();
        let rows = Rows(&host);
        rows.create("a");
        let stuck = rows.synced("stuck");
        stuck.signal("STOP");
        let set = [
            "db", "set", "--table", "t", "--key", "a", "--value", "2", "--wait", "600",
        ];
        let mut writer = Process::start(rows.command(&set));
        assert_eq!(writer.line(), "set version 2");
        writer.signal("TERM");
        let end = writer.end();
        stuck.signal("CONT");
        assert_eq!((end.code, end.stdout), (Some(1), Vec::new()), "{}", end.stderr);
        assert!(end.stderr.contains("a signal came before"), "{}", end.stderr);
    });
}

/// Nobody else removes the registration of the last replica.
#[test]
fn writers_remove_the_only_replica_once_it_was_killed() {
    within(4 * LIMIT, || {
        let host = Host::start();
        let rows = Rows(&host);
        rows.create("a");
        let mut command = rows.replica(&["--id", "one"]);
        command.env("TABLECAST_PUBLISHER_TIMEOUT_MS", "2000");
        let mut replica = rows.until_registered("one", Process::start(command));
        replica.kill();
        let set = || rows.db(&["set", "--table", "t", "--key", "a", "--value", "2", "--wait", "1"]);
        let end = set();
        assert_eq!((end.code, &*end.stdout[1]), (Some(1), "applied by 0 of 1 replicas"));
        assert!(end.stderr.contains("one"), "{}", end.stderr);
        eventually(LIMIT, || set().code == Some(0));
        assert_eq!(set().stdout[1], "applied by 0 of 0 replicas");
    });
}
