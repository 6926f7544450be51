//! Output of the tool for people at a terminal, and for programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{pass, within};
use crate::process::{LIMIT, Process, run, tablecast};
use tablecast::config::Config;
use tablecast::store::{Store, StoreOptions, Write};
use tablecast::stores::sqlite::SqliteStore;
use tempfile::TempDir;

/// A database with two rows of the table `lport`.
fn database() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.db");
    let store = SqliteStore::open(path.clone(), StoreOptions::default()).unwrap();
    let rows = [
        (
            "port-1",
            r#"{"chassis":"host1","description":"a long text that no narrow terminal shows whole"}"#,
        ),
        ("port-22", "\u{1b}[2J"),
    ];
    for (key, value) in rows {
        store.write(&Write::create("lport", key, value)).unwrap();
    }
    (folder, path)
}

/// What the tool prints on a terminal of 40 columns.
fn on_a_terminal(path: &Path, args: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let tool = env!("CARGO_BIN_EXE_tablecast");
    let mut command = Command::new("script");
    command.args(["-qec", &format!("stty cols 40; {tool} {args}"), "/dev/null"]);
    command.env("TABLECAST_SQLITE_PATH", path).env_remove("NO_COLOR");
    command.envs(variables.iter().copied());
    let end = run(command);
    assert_eq!(end.code, Some(0), "{end:?}");
    end.stdout
        .iter()
        .map(|line| line.trim_end_matches('\r').to_owned())
        .collect()
}

#[test]
fn a_terminal_shows_columns() {
    within(LIMIT, || {
        let (_folder, path) = database();
        let shown = on_a_terminal(&path, "db list --table lport", &[("NO_COLOR", "1")]);
        let expected = [
            "key      version  topic  value",
            r#"port-1   v1       D      {"chassis":"ho…"#,
            r"port-22  v2       D      \u{1b}[2J",
        ];
        assert_eq!(shown, expected);

        let coloured = on_a_terminal(&path, "db list --table lport", &[]);
        assert!(coloured[0].starts_with("\u{1b}[1mkey\u{1b}[0m"), "{coloured:?}");
        let json = on_a_terminal(&path, "db list --table lport --format json", &[]);
        assert!(json[0].starts_with(r#"{"table":"lport","key":"port-1""#), "{json:?}");
        assert_eq!(
            on_a_terminal(&path, "db list --table lport --keys", &[]),
            ["port-1", "port-22"]
        );
    });
}

#[test]
fn wide_characters_keep_the_columns() {
    within(LIMIT, || {
        let (_folder, path) = database();
        let store = SqliteStore::open(path.clone(), StoreOptions::default()).unwrap();
        for (key, value) in [("端口🦀", "x"), ("e\u{301}", "端口端口端口端口端口端口")] {
            store.write(&Write::create("lport", key, value)).unwrap();
        }
        let shown = on_a_terminal(&path, "db list --table lport", &[("NO_COLOR", "1")]);
        let expected = [
            "key      version  topic  value",
            "e\u{301}        v4       D      端口端口端口端…",
            r#"port-1   v1       D      {"chassis":"ho…"#,
            r"port-22  v2       D      \u{1b}[2J",
            "端口🦀   v3       D      x",
        ];
        assert_eq!(shown, expected);
    });
}

/// As a reader that is slow, and a pipe that another process may have made non-blocking.
#[test]
fn help_is_complete_however_slowly_it_is_read() {
    within(LIMIT, || {
        let read = |args: &[&str], to_stderr: bool| {
            let (mut reader, writer) = UnixStream::pair().unwrap();
            rustix::net::sockopt::set_socket_send_buffer_size(&writer, 4096).unwrap();
            writer.set_nonblocking(true).unwrap();
            let mut command = tablecast(args);
            match to_stderr {
                true => command.stdout(Stdio::null()).stderr(OwnedFd::from(writer)),
                false => command.stdout(OwnedFd::from(writer)).stderr(Stdio::null()),
            };
            let mut child = command.spawn().unwrap();
            // The command would keep its end open.
            drop(command);
            let mut text = Vec::new();
            let mut part = [0; 512];
            while let Ok(length @ 1..) = reader.read(&mut part) {
                text.extend_from_slice(&part[..length]);
                pass(Duration::from_millis(5));
            }
            (child.wait().unwrap().code(), String::from_utf8(text).unwrap())
        };
        for (args, code, to_stderr) in [
            (&["service", "--help"][..], 0, false),
            (&["--version"], 0, false),
            (&[], 2, true),
            (&["no-command"], 2, true),
        ] {
            let end = run(tablecast(args));
            let whole = if to_stderr { end.stderr } else { end.stdout.join("\n") };
            assert!(!whole.is_empty() && !whole.contains('\u{1b}'), "{whole}");
            let (ended, text) = read(args, to_stderr);
            assert_eq!((ended, text.trim_end()), (Some(code), whole.trim_end()), "{args:?}");
        }
    });
}

#[test]
fn programs_get_json_unless_they_ask_for_columns() {
    within(LIMIT, || {
        let (_folder, path) = database();
        let list = |args: &[&str]| {
            let mut command = tablecast([&["db", "list", "--table", "lport"], args].concat());
            command.env("TABLECAST_SQLITE_PATH", &path);
            run(command).stdout[0].clone()
        };
        assert!(list(&[]).starts_with('{'));
        assert!(list(&["--format", "text"]).starts_with("key      version  topic  value"));
    });
}

#[test]
fn a_table_that_is_not_there_is_named_with_its_place() {
    within(LIMIT, || {
        let (_folder, path) = database();
        let mut command = tablecast(["db", "list", "--table", "lprot"]);
        command.env("TABLECAST_SQLITE_PATH", &path);
        let end = run(command);
        assert_eq!((end.code, end.stdout.len()), (Some(0), 0));
        assert!(end.stderr.contains("to table \"lprot\""), "{}", end.stderr);
        assert!(end.stderr.contains(path.to_str().unwrap()), "{}", end.stderr);

        // One without rows is there.
        SqliteStore::open(path.clone(), StoreOptions::default())
            .unwrap()
            .write(&Write::create("empty", "k", "x"))
            .unwrap();
        let in_empty = |args: &[&str]| {
            let mut command = tablecast([&["db"], args, &["--table", "empty"]].concat());
            command.env("TABLECAST_SQLITE_PATH", &path);
            command
        };
        let store = SqliteStore::open(path.clone(), StoreOptions::default()).unwrap();
        store.write(&Write::delete("empty", "k")).unwrap();
        let end = run(in_empty(&["list"]));
        assert_eq!((end.code, end.stdout.len(), end.stderr.as_str()), (Some(0), 0, ""));
    });
}

#[test]
fn each_option_shows_with_its_source() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("options.toml");
        fs::write(&file, "[tablecast]\nlinger_ms = 500\nretry_max = 1\n").unwrap();
        let mut command = tablecast(["config", "--config", file.to_str().unwrap()]);
        let end = run(command);
        assert_eq!(end.code, Some(2), "{end:?}");
        assert!(end.stderr.contains("retry_max"), "{}", end.stderr);

        fs::write(
            &file,
            "[tablecast]\nlinger_ms = 500\npublisher_port = 1\nredis_password = \"s3cret\"\n",
        )
        .unwrap();
        command = tablecast(["config", "--publisher-port", "9", "--config", file.to_str().unwrap()]);
        command
            .env("TABLECAST_CODEC", "json")
            .env("TABLECAST_PUBLISHER_PORT", "8");
        command.env("TABLECAST_REMOTE_DB_HOSTS", "redis://user:s3cret@127.0.0.1:1");
        let end = run(command);
        assert_eq!(end.code, Some(0), "{end:?}");
        assert!(!end.stdout.concat().contains("s3cret"), "{end:?}");
        let lines = end.stdout.iter().map(|line| {
            let line: BTreeMap<String, String> = serde_json::from_str(line).unwrap();
            (line["option"].clone(), (line["value"].clone(), line["source"].clone()))
        });
        let lines: BTreeMap<_, _> = lines.collect();
        assert_eq!(lines.len(), Config::options().len());
        let of = |option: &str| {
            let (value, source) = &lines[option];
            (value.as_str(), source.as_str())
        };
        let from_file = format!("file {}", file.display());
        assert_eq!(of("linger_ms"), ("500", from_file.as_str()));
        assert_eq!(of("redis_password"), ("***", from_file.as_str()));
        assert_eq!(of("publisher_port"), ("9", "flag --publisher-port"));
        assert_eq!(of("codec"), ("json", "environment TABLECAST_CODEC"));
        assert_eq!(of("remote_db_hosts").0, "redis://***@127.0.0.1:1");
        assert_eq!(of("hello_interval_ms"), ("1000", "default"));

        let mut piped = Process::start(tablecast(["config", "--set", "--config", "/dev/stdin"]));
        piped.write("linger_ms = 500");
        let end = piped.end();
        let expected = r#"{"option":"linger_ms","value":"500","unit":"milliseconds","source":"file /dev/stdin"}"#;
        assert_eq!(
            (end.code, end.stdout),
            (Some(0), vec![expected.to_owned()]),
            "{}",
            end.stderr
        );

        let shown = on_a_terminal(Path::new("/x/rows.db"), "config --set", &[("NO_COLOR", "1")]);
        let expected = [
            "option       value       unit  source",
            "sqlite_path  /x/rows.db        environm…",
        ];
        assert_eq!(shown, expected);
    });
}
