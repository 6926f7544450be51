//! `tablecast db`, driven by other programs.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::iter;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::{Stopwatch, eventually, pass, within};
use crate::host::{Host, json, socket};
use crate::process::{End, LIMIT, Process, assert_fails, run, run_unread, tablecast};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;
use serde_json::json;
use tablecast::store::StoreOptions;
use tablecast::stores::sqlite::SqliteStore;
use tablecast::{Store, Topic};
use tempfile::TempDir;

/// The database of a host, in a folder where the publisher service may be.
struct Db {
    folder: PathBuf,
}

impl Db {
    fn of(folder: &TempDir) -> Db {
        Db {
            folder: folder.path().to_owned(),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("rows.db")
    }

    /// The same database, for the test itself.
    fn store(&self) -> SqliteStore {
        SqliteStore::open(self.file(), StoreOptions::default()).unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = tablecast(["db", "--sqlite-path"]);
        command.arg(self.file()).arg("--publisher-multiproc-socket");
        // A busy machine must not count as an outage.
        let patience = [
            ("TABLECAST_SEND_TIMEOUT_MS", "20000"),
            ("TABLECAST_STORE_TIMEOUT_MS", "20000"),
        ];
        command.arg(socket(&self.folder)).args(args).envs(patience);
        command
    }

    fn run(&self, args: &[&str]) -> End {
        run(self.command(args))
    }

    /// Its output, if it succeeds.
    #[track_caller]
    fn prints(&self, args: &[&str]) -> Vec<String> {
        let end = self.run(args);
        assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""), "{args:?}");
        end.stdout
    }
}

/// A command about the row `port-1`.
fn port<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[command, "--table", "lport", "--key", "port-1"], more].concat()
}

/// The name of that row in errors.
const PORT: &str = r#"table "lport" key "port-1""#;

/// Another one was moved there while this process had the old one open.
#[test]
fn a_database_beside_the_log_of_another_one_is_left_alone() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::of(&folder);
        let idle = db.store();
        idle.create("lport", "old", "v", &Topic::ALL).unwrap();
        let new = folder.path().join("new.db");
        let store = SqliteStore::open(&new, StoreOptions::default()).unwrap();
        store.create("lport", "new", "v", &Topic::ALL).unwrap();
        drop(store);
        let content = fs::read(&new).unwrap();
        fs::rename(&new, db.file()).unwrap();
        let list: &[&str] = &["list", "--table", "lport", "--keys"];
        let create = [
            "create",
            "--no-publish",
            "--table",
            "lport",
            "--key",
            "k",
            "--value",
            "v",
        ];
        for args in [list, &create, &["table", "create", "t"]] {
            assert_fails(&db.run(args), 1, &["rows.db", "-wal"]);
            assert!(fs::read(db.file()).unwrap() == content, "{args:?}");
        }
        idle.get("lport", "old", None).unwrap_err();
        assert_eq!(db.prints(list), [r#""new""#]);
    });
}

#[test]
fn changes_are_stored_and_published() {
    let host = Host::start();
    let db = Db::of(&host.folder);
    let mut watch = host.live_watch(&["--topic", "tenant1"]);
    let create = port("create", &["--value", r#"{"n": 1}"#, "--topic", "tenant1"]);
    assert_eq!(db.prints(&create), ["created version 1"]);
    assert_eq!(
        watch.line(),
        r#"{"event":"update","table":"lport","key":"port-1","action":"create","value":"{\"n\": 1}","topic":"tenant1","priority":5,"version":1}"#
    );
    let row = r#"{"table":"lport","key":"port-1","value":"{\"n\": 1}","topic":"tenant1","version":1}"#;
    assert_eq!(db.prints(&port("get", &[])), [row]);
    assert_eq!(db.prints(&port("get", &["--topic", "tenant1"])), [row]);
    assert_fails(
        &db.run(&port("get", &["--topic", "other"])),
        1,
        &["not found", PORT, "other", db.file().to_str().unwrap()],
    );
    let elsewhere = db.run(&["get", "--table", "lprot", "--key", "port-1"]);
    assert_eq!(
        elsewhere.stderr.matches(db.file().to_str().unwrap()).count(),
        1,
        "{elsewhere:?}"
    );
    assert_fails(
        &elsewhere,
        1,
        &[
            r#"table "lprot" key "port-1""#,
            "nothing was ever written to that table",
        ],
    );

    // Only changes are published.
    assert_eq!(
        db.prints(&port("set", &["--value", r#"{"n": 1}"#])),
        ["unchanged version 1"]
    );
    let other = db.run(&port("set", &["--value", "-2", "--topic", "other"]));
    assert_fails(&other, 1, &["not found", PORT]);
    let late = db.run(&port("set", &["--value", "-2", "--if-version", "2"]));
    assert_fails(&late, 1, &["conflict", PORT, "has version 1, not 2"]);
    let silent = port("set", &["--value", "-2", "--no-publish", "--if-version", "1"]);
    assert_eq!(db.prints(&silent), ["set version 2"]);
    let set = port("set", &["--value", "-3", "--if-version", "2", "--priority", "-1"]);
    assert_eq!(db.prints(&set), ["set version 3"]);
    assert_eq!(
        watch.line(),
        r#"{"event":"update","table":"lport","key":"port-1","action":"set","value":"-3","topic":"tenant1","priority":-1,"version":3}"#
    );
    assert_fails(&db.run(&create), 1, &["already exists", PORT]);
    assert_fails(&db.run(&port("delete", &["--if-version", "2"])), 1, &["conflict", PORT]);
    let delete = port("delete", &["--if-version", "3", "--topic", "tenant1"]);
    assert_eq!(db.prints(&delete), ["deleted version 4"]);
    assert_eq!(
        watch.line(),
        r#"{"event":"update","table":"lport","key":"port-1","action":"delete","value":null,"topic":"tenant1","priority":5,"version":4}"#
    );
    for gone in [port("get", &[]), port("set", &["--value", ""]), port("delete", &[])] {
        assert_fails(&db.run(&gone), 1, &["not found", PORT]);
    }
    watch.signal("TERM");
    assert_eq!(watch.end().stdout, [""; 0]);
}

#[test]
fn what_nobody_can_be_told_of_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::of(&folder);
    let fails = |args: Vec<&str>| {
        let args = [&args[..], &["--send-timeout-ms", "100"]].concat();
        let named = ["not published, and undone", "publisher.sock", PORT];
        assert_fails(&db.run(&args), 1, &named);
    };
    fails(port("create", &["--value", "1"]));
    assert_fails(&db.run(&port("get", &[])), 1, &["not found", PORT]);

    db.prints(&port("create", &["--value", "1", "--no-publish", "--topic", "tenant1"]));
    fails(port("set", &["--value", "2"]));
    fails(port("delete", &[]));
    let row = json(&db.prints(&port("get", &[]))[0]);
    assert_eq!((&row["value"], &row["topic"]), (&json!("1"), &json!("tenant1")));
    // A write that changes nothing is not published, but another process may take back what it has found.
    let same = port("set", &["--value", "1", "--send-timeout-ms", "100"]);
    assert_fails(
        &db.run(&same),
        1,
        &["already so, but nothing can be published", "publisher.sock", PORT],
    );
    let unchanged = format!("unchanged version {}", row["version"]);
    assert_eq!(db.prints(&port("set", &["--value", "1", "--no-publish"])), [unchanged]);
}

#[test]
fn a_signal_waits_until_a_change_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::of(&folder);
    let create = port("create", &["--value", "1", "--send-timeout-ms", "3000"]);
    let mut create = Process::start(db.command(&create));
    let store = db.store();
    eventually(LIMIT, || store.get("lport", "port-1", None).is_ok());
    create.signal("INT");
    assert_fails(&create.end(), 1, &["not published, and undone", PORT]);
    assert_fails(&db.run(&port("get", &[])), 1, &["not found", PORT]);
}

#[test]
fn a_publisher_of_its_own_says_that_it_is_alone() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::of(&folder);
    let bind = ["--pub-sub-use-multiproc", "false", "--publisher-transport", "ipc"];
    let mut command = db.command(&port("create", &["--value", "1"]));
    command
        .args(bind)
        .arg("--publisher-bind-address")
        .arg(folder.path().join("network.sock"));
    let end = run(command);
    assert_eq!((end.code, end.stdout), (Some(0), vec!["created version 1".into()]));
    assert!(
        end.stderr.contains("warning: no subscribers are connected"),
        "{}",
        end.stderr
    );
}

#[test]
fn a_value_comes_from_stdin() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::of(&folder);
    let from_stdin = |args: &[&str], input: &str| {
        let args = port("create", &[&["--no-publish", "--value", "-"], args].concat());
        let mut process = Process::start(db.command(&args));
        process.write(input);
        process.end()
    };
    let value = format!("{{\"text\": \"{}\"}}\n", "ü".repeat(200_000));
    assert_eq!(from_stdin(&[], &value).code, Some(0));
    assert_eq!(json(&db.prints(&port("get", &[]))[0])["value"], value);
    let end = from_stdin(&["--max-message-bytes", "64"], &"ü".repeat(33));
    assert_fails(&end, 1, &["too large", "stdin", "max_message_bytes is 64"]);

    let mut reading = Process::start(db.command(&port("create", &["--value", "-"])));
    reading.write("1");
    reading.signal("INT");
    assert_eq!(reading.end().code, None);
}

#[test]
fn lines_are_written_one_by_one() {
    let host = Host::start();
    let db = Db::of(&host.folder);
    let mut watch = host.live_watch(&["--topic", "tenant1"]);
    let mut write = Process::start(db.command(&["write", "--file", "-"]));
    for (change, result) in [
        (
            r#""action":"create","value":{"n":1},"topic":"tenant1""#,
            "created version 1",
        ),
        (r#""value":"{\"n\":1}","topic":"tenant1""#, "unchanged version 1"),
        (r#""value":"2","topic":"other""#, "failed: not found"),
        // As in `publish`: the topic D.
        (r#""value":"2""#, "failed: not found"),
        (r#""value":"2","topic":null"#, "failed: not found"),
        (r#""value":"2","topic":"D""#, "failed: not found"),
        (r#""action":"delete""#, "failed: not found"),
        (r#""value":"2","topic":"tenant1","priority":-1"#, "set version 2"),
        (r#""action":"create","value":"3""#, "failed: already exists"),
        (r#""action":"delete","topic":"tenant1""#, "deleted version 3"),
    ] {
        write.write(&format!("{{\"table\":\"lport\",\"key\":\"port-1\",{change}}}\n"));
        let line = write.line();
        assert!(line.starts_with(result), "{line}");
        assert_eq!(line.contains(PORT), result.starts_with("failed"), "{line}");
    }
    assert_fails(
        &write.end(),
        1,
        &["already exists", "6 writes failed; the last one", PORT],
    );
    for (action, value, priority) in [
        ("create", json!("{\"n\":1}"), 5),
        ("set", json!("2"), -1),
        ("delete", json!(null), 5),
    ] {
        let update = json(&watch.line());
        assert_eq!(
            (&update["action"], &update["value"], &update["priority"]),
            (&json!(action), &value, &json!(priority))
        );
    }
}

#[test]
fn lines_end_with_a_bad_one_or_a_signal() {
    let host = Host::start();
    let db = Db::of(&host.folder);
    let start = || {
        let mut write = Process::start(db.command(&["write", "--file", "-", "--max-key-bytes", "8"]));
        write.write(r#"{"table":"t","key":"k","action":"delete"}"#);
        write.write("\n");
        assert!(write.line().starts_with("failed: not found"));
        write
    };
    for (change, named) in [
        (r#""action":"move","value":"1""#, "\"move\""),
        (r#""action":"set""#, "no value"),
    ] {
        let mut write = start();
        write.write(&format!("{{\"table\":\"t\",\"key\":\"k\",{change}}}\n"));
        assert_fails(&write.end(), 1, &["line 2 of stdin", named, "1 write failed, and then"]);
    }
    let mut write = start();
    write.write("{\"table\":\"t\",\"key\":\"too-long-1\",\"action\":\"create\",\"value\":\"1\"}\n");
    assert!(write.line().starts_with("failed: invalid input"));
    assert_fails(&write.end(), 1, &["2 writes failed; the last one", "max_key_bytes"]);
    // Its stdin stays open.
    let mut write = start();
    write.signal("TERM");
    eventually(LIMIT, || !write.is_running());
    assert_fails(&write.end(), 1, &["a signal came before the last line"]);
}

#[test]
fn a_reader_of_results_that_leaves_ends_the_writes() {
    let host = Host::start();
    let db = Db::of(&host.folder);
    let file = host.folder.path().join("lines");
    let line = |change: &str| format!("{{\"table\":\"lport\",\"key\":\"port-1\",{change}}}\n");
    fs::write(
        &file,
        line(r#""action":"delete""#) + &line(r#""action":"create","value":"1""#),
    )
    .unwrap();
    let end = run_unread(db.command(&["write", "--file", file.to_str().unwrap()]));
    assert_fails(
        &end,
        1,
        &[
            "1 write failed, and then",
            "lines after this write are not made",
            "Broken pipe",
        ],
    );
    assert_fails(&db.run(&port("get", &[])), 1, &["not found"]);
}

#[test]
fn names_stay_literal() {
    let host = Host::start();
    let db = Db::of(&host.folder);
    let rows = [
        ("", "", "D*", ""),
        ("a", "b.c", "tenant", "null"),
        ("a.b", "c", "ten", "\\"),
        ("*?[]{}", "*", "*", "*"),
        ("--table", "--key", "--topic", "--value"),
        ("two\nlines", "\t\r\n", " ", "\n"),
        ("täble 🦀", "'; DROP TABLE entries; --", "\u{202e}", "ü"),
        ("lport", "\"\\u0000%00$HOME", "_", "\u{7f}"),
    ];
    let topics: Vec<_> = rows.iter().map(|(_, _, topic, _)| format!("--topic={topic}")).collect();
    let topics: Vec<_> = topics.iter().map(String::as_str).collect();
    let mut watch = host.live_watch(&topics);
    for (table, key, topic, value) in rows {
        let (table_flag, key_flag) = (&*format!("--table={table}"), &*format!("--key={key}"));
        let (topic_flag, value_flag) = (&*format!("--topic={topic}"), &*format!("--value={value}"));
        let created = db.prints(&["create", table_flag, key_flag, topic_flag, value_flag]);
        assert_eq!(created, ["created version 1"]);
        let row = json!({"table": table, "key": key, "value": value, "topic": topic, "version": 1});
        let update = json(&watch.line());
        for (name, value) in row.as_object().unwrap() {
            assert_eq!(&update[name], value, "{update}");
        }
        let line = db.prints(&["get", table_flag, key_flag]);
        assert_eq!(line.iter().map(|line| json(line)).collect::<Vec<_>>(), [row]);
        assert_eq!(db.prints(&["list", table_flag]), line);
        assert_eq!(db.prints(&["list", table_flag, topic_flag]), line);
        let none = db.run(&["list", table_flag, "--topic=other"]);
        assert_eq!((none.code, none.stdout.len()), (Some(0), 0));
        assert!(
            none.stderr.contains(r#"with topic "other" in the file"#),
            "{}",
            none.stderr
        );
        let keys = db.prints(&["list", table_flag, "--keys"]);
        assert_eq!(keys.iter().map(|key| json(key)).collect::<Vec<_>>(), [key]);
    }
}

#[test]
fn four_processes_set_one_row() {
    const SETS: usize = 8;
    let host = Host::start();
    let db = Db::of(&host.folder);
    let mut watch = host.live_watch(&["--count", "33"]);
    db.prints(&port("create", &["--value", "new"]));
    let writer = |name: usize| {
        let set = |number| {
            let value = format!("{name}-{number}");
            let said = db.prints(&port("set", &["--value", &value]));
            let version = said[0].strip_prefix("set version ").unwrap();
            (version.parse().unwrap(), value)
        };
        (0..SETS).map(set).collect::<Vec<(u64, _)>>()
    };
    let sets: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4).map(|name| scope.spawn(move || writer(name))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    // No writer writes a state older than its last one.
    assert!(sets.iter().all(|sets| sets.is_sorted()));
    let mut sets: Vec<_> = sets.into_iter().flatten().collect();
    sets.push((1, "new".into()));
    sets.sort();
    assert!(sets.iter().map(|(version, _)| *version).eq(1..=33), "{sets:?}");

    let read = |line: &String| {
        let row = json(line);
        let value = row["value"].as_str().unwrap().to_owned();
        (row["version"].as_u64().unwrap(), value)
    };
    assert_eq!(read(&db.prints(&port("get", &[]))[0]), sets[32]);
    let mut heard: Vec<_> = watch.end().stdout.iter().map(read).collect();
    heard.sort();
    assert_eq!(heard, sets);
}

const ROWS: usize = 10_000;

/// A list of many rows that writes to a pipe, of which only the test reads.
struct List {
    child: Child,
    rows: Box<dyn Iterator<Item = io::Result<String>>>,
}

impl List {
    /// Starts it, and takes the first row.
    fn start(db: &Db) -> List {
        let (reader, writer) = io::pipe().unwrap();
        let mut command = db.command(&["list", "--table", "t", "--batch-amount", "100"]);
        let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let mut rows = Box::new(BufReader::new(reader).lines());
        assert_eq!(json(&rows.next().unwrap().unwrap())["key"], "00000");
        List { child, rows }
    }

    fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).unwrap();
    }

    /// The exit code and the output.
    fn end(&mut self) -> (Option<i32>, String) {
        eventually(LIMIT, || self.child.try_wait().unwrap().is_some());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for List {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_long_list_streams() {
    within(3 * LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::of(&folder);
        let store = fill(&db);
        a_list_has_all(&db);
        a_pipe_that_does_not_block_loses_nothing(&db);
        a_slow_reader_gets_what_is_there_then(&db, &store);
        a_reader_that_leaves_ends_it_quietly(&db);
        a_signal_ends_it(&db);
        a_signal_ends_it_if_the_reader_hangs(&db);
    });
}

/// Long enough that the pipe holds a small part of the rows.
const VALUE: &str = "The value of a row that is one of many, and that says so at some length, so that ten thousand of them are far more than a pipe takes while nobody reads from it.";

/// Adds the rows without the store, since as many commits would take long on a slow disk.
fn fill(db: &Db) -> SqliteStore {
    let store = db.store();
    store.create("t", "00000", VALUE, &Topic::ALL).unwrap();
    let copy = format!(
        "WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number + 1 < {ROWS})
        INSERT INTO entries (table_id, key, topic, version, value)
        SELECT table_id, printf('%05d', number), topic, 1, value FROM entries, numbers"
    );
    let copied = Connection::open(db.file()).unwrap().execute(&copy, []);
    assert_eq!(copied.unwrap(), ROWS - 1);
    store
}

fn a_list_has_all(db: &Db) {
    let key = |number| format!("{number:05}");
    let rows = db.prints(&["list", "--table", "t"]);
    assert_eq!(rows.len(), ROWS);
    for (number, row) in rows.iter().enumerate() {
        let expected = json!({"table": "t", "key": key(number), "value": VALUE, "topic": "D", "version": 1});
        assert_eq!(json(row), expected);
    }
    let keys = db.prints(&["list", "--table", "t", "--keys"]);
    assert!(
        keys.into_iter()
            .eq((0..ROWS).map(|number| format!("{:?}", key(number))))
    );
}

/// Another process that shares the pipe may have made it non-blocking.
fn a_pipe_that_does_not_block_loses_nothing(db: &Db) {
    let (reader, writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    let mut command = db.command(&["list", "--table", "t"]);
    let child = command
        .stdout(OwnedFd::from(writer))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let rows = Box::new(BufReader::new(reader).lines());
    // The command would keep its end open.
    drop(command);
    let mut list = List { child, rows };
    let slowly = |_: &io::Result<String>| pass(Duration::from_micros(20));
    assert_eq!(list.rows.by_ref().inspect(slowly).count(), ROWS);
    assert_eq!(list.end(), (Some(0), String::new()));
}

fn a_slow_reader_gets_what_is_there_then(db: &Db, store: &SqliteStore) {
    let mut list = List::start(db);
    store.delete("t", &format!("{:05}", ROWS - 1)).unwrap();
    assert_eq!(list.rows.by_ref().count(), ROWS - 2);
    assert_eq!(list.end(), (Some(0), String::new()));
}

fn a_reader_that_leaves_ends_it_quietly(db: &Db) {
    let mut list = List::start(db);
    list.rows = Box::new(iter::empty());
    assert_eq!(list.end(), (Some(0), String::new()));
}

fn a_signal_ends_it(db: &Db) {
    let mut list = List::start(db);
    list.interrupt();
    // All rows would take ten seconds.
    let slowly = |_: &io::Result<String>| pass(Duration::from_millis(1));
    let rows = list.rows.by_ref().inspect(slowly).count();
    assert!(rows < ROWS / 2, "{rows}");
    assert_eq!(list.end().0, Some(1));
}

fn a_signal_ends_it_if_the_reader_hangs(db: &Db) {
    let mut list = List::start(db);
    let start = Stopwatch::start();
    list.interrupt();
    assert_eq!(list.end().0, Some(1));
    start.assert_within(Duration::from_secs(2), "the end");
}

#[test]
fn tables_and_unique_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::of(&folder);
    let end = db.run(&["list", "--table", "t"]);
    assert_eq!((end.code, end.stdout.len()), (Some(0), 0), "{end:?}");
    assert!(end.stderr.contains(r#"to table "t""#), "{end:?}");
    assert_fails(&db.run(&["table", "delete", "t"]), 1, &["not found", r#"table "t""#]);
    assert_eq!(db.prints(&["table", "create", "t"]), ["created"]);
    assert_fails(
        &db.run(&["table", "create", "t"]),
        1,
        &["already exists", r#"table "t""#],
    );
    db.prints(&["create", "--table", "t", "--key", "k", "--value", "", "--no-publish"]);
    assert_eq!(db.prints(&["table", "delete", "t"]), ["deleted"]);
    assert_eq!(db.prints(&["list", "--table", "t"]), [""; 0]);
    assert_eq!(db.prints(&["unique", "t"]), ["1"]);
    assert_eq!(db.prints(&["unique", "--table", "t"]), ["2"]);
    assert_eq!(db.prints(&["table", "create", "--table", "u"]), ["created"]);
    assert_eq!(db.prints(&["table", "delete", "--table", "u"]), ["deleted"]);
    assert_eq!(db.prints(&["unique", "--", "--other"]), ["1"]);
}

#[test]
fn tables_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::of(&folder);
    let end = db.run(&["tables"]);
    assert_eq!((end.code, end.stdout.len()), (Some(0), 0), "{end:?}");
    let place = format!("there is no table in the file {}", db.file().display());
    assert!(end.stderr.contains(&place), "{end:?}");
    for table in ["b", "a", "two\nlines"] {
        db.store().create(table, "k", "x", &Topic::ALL).unwrap();
    }
    db.prints(&["table", "create", "empty"]);
    db.prints(&["table", "delete", "a"]);
    let json = [r#"{"table":"b"}"#, r#"{"table":"empty"}"#, r#"{"table":"two\nlines"}"#];
    assert_eq!(db.prints(&["tables"]), json);
    let text = ["table", "b", "empty", r"two\nlines"];
    assert_eq!(db.prints(&["tables", "--format", "text"]), text);
}

#[cfg(feature = "redis")]
#[test]
fn tables_in_redis_have_a_number_of_rows() {
    let server = crate::servers::Server::start();
    let folder = tempfile::tempdir().unwrap();
    let db = Db::of(&folder);
    let hosts = server.host();
    let in_redis = |args: &[&str]| db.prints(&[args, &["--store", "redis", "--remote-db-hosts", &hosts]].concat());
    let create = [
        "create",
        "--table",
        "lport",
        "--key",
        "k",
        "--value",
        "x",
        "--no-publish",
    ];
    in_redis(&create);
    in_redis(&["table", "create", "empty"]);
    let json = [r#"{"table":"empty","rows":0}"#, r#"{"table":"lport","rows":1}"#];
    assert_eq!(in_redis(&["tables"]), json);
    let text = ["table  rows", "empty  0", "lport  1"];
    assert_eq!(in_redis(&["tables", "--format", "text"]), text);
}

#[test]
fn outages_name_the_row() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::of(&folder);
    fs::write(db.file(), "of another program".repeat(100)).unwrap();
    let file = db.file().display().to_string();
    let commands = [
        port("create", &["--value", "1"]),
        port("create", &["--value", "1", "--no-publish"]),
        port("get", &[]),
        port("set", &["--value", "1"]),
        port("delete", &[]),
    ];
    for command in commands {
        assert_fails(&db.run(&command), 1, &[PORT, &file]);
    }
    for command in [
        &["list", "--table", "lport"][..],
        &["unique", "lport"],
        &["table", "create", "lport"],
        &["table", "delete", "lport"],
    ] {
        assert_fails(&db.run(command), 1, &[r#"table "lport""#, &file]);
    }
}

#[test]
fn wrong_usage_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::of(&folder);
    let pigeon = port("get", &["--store", "pigeon"]);
    assert_fails(&db.run(&pigeon), 2, &["nb_db_class", "pigeon", "sqlite"]);
    let topic = port("create", &["--value", "1", "--topic", ""]);
    assert_fails(&db.run(&topic), 2, &["topic"]);
    let long = port("create", &["--value", "1", "--max-key-bytes", "3"]);
    assert_fails(&db.run(&long), 2, &["undone", "max_key_bytes", PORT]);
    assert_fails(&db.run(&port("get", &[])), 1, &["not found"]);
    let usages = [
        vec![],
        vec!["get", "--table", "t"],
        vec!["list"],
        vec!["table"],
        vec!["unique"],
        vec!["unique", "t", "--table", "t"],
        port("create", &[]),
        port("set", &[]),
        port("get", &["--value", "1"]),
        port("get", &["--no-publish"]),
        port("create", &["--value", "1", "--if-version", "1"]),
    ];
    for args in usages {
        let end = db.run(&args);
        assert_eq!((end.code, end.stdout.len()), (Some(2), 0), "{args:?}: {end:?}");
        assert!(end.stderr.contains("Usage: tablecast db"), "{args:?}: {end:?}");
    }
}

#[test]
fn the_store_memory_warns_that_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::of(&folder);
    let end = db.run(&port("create", &["--value", "1", "--no-publish", "--store", "memory"]));
    assert_eq!((end.code, end.stdout), (Some(0), vec!["created version 1".into()]));
    assert!(end.stderr.contains("warning: the store memory ends"), "{}", end.stderr);
    assert!(!db.file().exists());
}
