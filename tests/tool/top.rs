//! `tablecast top`: once, in a pipe, and on a pseudoterminal with keys.

use std::process::Command;
use std::time::Duration;

use crate::common::within;
use crate::process::{Process, run, tablecast};
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);

const SHORT: &str = "5000";

/// A service, a replica, and a listener that discover each other through a store.
struct Deployment {
    folder: TempDir,
    /// The time after which a member that has not renewed its registration is gone, in milliseconds.
    timeout: &'static str,
    _processes: Vec<Process>,
}

impl Deployment {
    fn start(timeout: &'static str) -> Deployment {
        let folder = tempfile::tempdir().unwrap();
        let mut all = Deployment {
            folder,
            timeout,
            _processes: Vec::new(),
        };
        let mut service = Process::start(tablecast(all.args(&["service", "--publisher-port", "0"])));
        assert!(service.line().starts_with("ready "));
        let args = ["replica", "--table", "lport", "--topic", "D", "--id", "agent-1"];
        let mut replica = Process::start(tablecast(all.args(&args)));
        assert_eq!(replica.line(), r#"{"event":"synced","rows":0}"#);
        let mut listener = Process::start(tablecast(all.args(&["listen", "--id", "server-1"])));
        listener.await_stderr("ready");
        all._processes = vec![listener, replica, service];
        all
    }

    fn args(&self, args: &[&str]) -> Vec<String> {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let (socket, store) = (path("publisher.sock"), path("rows.db"));
        let options = [
            "--publisher-multiproc-socket",
            &socket,
            "--sqlite-path",
            &store,
            "--discover",
            "true",
            "--discover-interval-ms",
            "100",
            "--publisher-timeout-ms",
            self.timeout,
            "--listener-timeout-ms",
            self.timeout,
        ];
        args.iter().chain(&options).map(|arg| (*arg).to_owned()).collect()
    }
}

#[test]
fn a_deployment_is_shown_as_a_table_and_as_json() {
    within(LIMIT, || {
        let all = Deployment::start(SHORT);
        let mut writer = Process::start(tablecast(all.args(&["publish", "--file", "-"])));
        let mut top = Process::start(tablecast(all.args(&["top", "--topic", "D", "--interval", "0.5"])));
        // Until everything is known: a member is once it has renewed its row.
        let mut missing = vec!["publisher", "replica", "listener", "topic", "address"];
        while !missing.is_empty() {
            writer.write("{\"table\":\"lport\",\"key\":\"k\"}\n");
            let row: Value = serde_json::from_str(&top.line()).unwrap();
            let (kind, state) = (row["kind"].as_str().unwrap(), row["state"].as_str().unwrap());
            let is_known = match kind {
                "publisher" | "listener" => state == "alive" && row["rate"].is_f64(),
                "replica" => row["name"] == "agent-1" && state == "alive" && row["stale_ms"].is_u64(),
                "topic" => row["name"] == "D" && row["rate"].as_f64() > Some(0.0) && row["lag_ms"].is_f64(),
                _ => state == "live",
            };
            if is_known {
                missing.retain(|wanted| *wanted != kind);
            }
        }
        top.signal("TERM");
        assert_eq!(top.end().code, Some(0));

        let end = run(tablecast(
            all.args(&["top", "--topic", "D", "--once", "--format", "text"]),
        ));
        assert_eq!(end.code, Some(0), "{end:?}");
        assert!(end.stdout[0].starts_with("kind       name"), "{end:?}");
        for part in ["tables lport topics D", "server-1", "address    tcp://127.0.0.1:"] {
            assert!(end.stdout.concat().contains(part), "{part}: {end:?}");
        }
        assert_eq!(writer.end().code, Some(0));
    });
}

#[test]
fn one_look_waits_until_all_is_known() {
    within(LIMIT, || {
        // Renewals come every 3 s.
        let all = Deployment::start("9000");
        let end = run(tablecast(all.args(&["top", "--topic", "D", "--once"])));
        assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""), "{end:?}");
        let rows: Vec<Value> = end
            .stdout
            .iter()
            .map(|row| serde_json::from_str(row).unwrap())
            .collect();
        for kind in ["address", "publisher", "replica", "listener"] {
            let row = rows.iter().find(|row| row["kind"] == kind);
            let state = row.unwrap_or_else(|| panic!("no {kind}: {end:?}"))["state"].as_str();
            assert!(matches!(state, Some("live" | "alive")), "{kind}: {end:?}");
        }
        // Of a replica that has ended without a word nothing is known for longer than that.
        drop(all._processes);
        let args = all.folder.path().join("rows.db");
        let mut look = tablecast(["top", "--topic", "D", "--once", "--timeout", "1", "--format", "text"]);
        look.arg("--sqlite-path")
            .arg(args)
            .args(["--publisher", "tcp://127.0.0.1:1"]);
        let end = run(look);
        assert_eq!(end.code, Some(0), "{end:?}");
        assert!(
            end.stdout
                .iter()
                .any(|row| row.starts_with("replica") && row.contains("unknown")),
            "{end:?}"
        );
    });
}

/// The path may be mistyped.
#[test]
fn members_are_shown_once_there_is_a_store() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("rows.db");
        let here = |args: &[&str]| {
            let mut command = tablecast(args);
            command.arg("--sqlite-path").arg(&store);
            command
        };
        let missing = format!(
            "no members are shown: option sqlite_path: {} does not exist",
            store.display()
        );
        let end = run(here(&[
            "top",
            "--publisher",
            "tcp://127.0.0.1:1",
            "--once",
            "--timeout",
            "1",
        ]));
        assert_eq!(end.code, Some(0), "{end:?}");
        assert!(
            end.stderr.contains(&missing) && end.stderr.lines().count() == 1,
            "{end:?}"
        );
        let mut top = Process::start(here(&["top", "--publisher", "tcp://127.0.0.1:1", "--interval", "0.2"]));
        top.await_stderr(&missing);
        assert!(!store.exists());
        let _replica = Process::start(here(&[
            "replica", "--table", "lport", "--topic", "D", "--id", "agent-1",
        ]));
        await_line(&mut top, "agent-1");
    });
}

/// A look at nothing that is there.
fn nowhere(more: &[&str]) -> Vec<String> {
    let args = [
        "top",
        "--publisher",
        "tcp://127.0.0.1:1",
        "--store",
        "redis",
        "--remote-db-hosts",
        "127.0.0.1:1",
    ];
    args.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
}

#[test]
fn one_look_fails_without_the_store() {
    within(LIMIT, || {
        let end = run(tablecast(nowhere(&["--once", "--format", "text"])));
        assert_eq!(end.code, Some(1), "{end:?}");
        // What there is stands alone; the error is the only line on stderr.
        assert!(
            end.stdout
                .iter()
                .any(|row| row.starts_with("address  tcp://127.0.0.1:1")),
            "{end:?}"
        );
        assert_eq!(end.stderr.lines().count(), 1, "{end:?}");
        for part in [
            "tablecast: error: unavailable: the members are not known",
            "127.0.0.1:1",
        ] {
            assert!(end.stderr.contains(part), "{part}: {end:?}");
        }
    });
}

/// `top` on a terminal of this size, under a shell that runs more commands around it.
fn on_a_terminal(size: &str, before: &str, args: &[String], after: &str) -> Process {
    let tool = env!("CARGO_BIN_EXE_tablecast");
    let args = args.join(" ");
    let mut command = Command::new("script");
    let inside = format!("exec bash -c 'stty {size}; {before} {tool} {args}; {after}'");
    command.args(["-qec", &inside, "/dev/null"]).env("NO_COLOR", "1");
    Process::start(command)
}

/// The next line with this text.
fn await_line(top: &mut Process, text: &str) -> String {
    loop {
        let line = top.line();
        if line.contains(text) {
            return line;
        }
    }
}

#[test]
fn keys_choose_and_the_terminal_is_as_it_was() {
    within(LIMIT, || {
        let all = Deployment::start(SHORT);
        let args = all.args(&["top", "--topic", "D", "--interval", "0.2"]);
        let same = "[ $before = $(stty -g) ] && echo same";
        let mut top = on_a_terminal("cols 100 rows 20", "before=$(stty -g);", &args, same);
        await_line(&mut top, "by kind; / filters, q ends");
        await_line(&mut top, "agent-1");
        top.write("n/server\r");
        await_line(&mut top, "by name; filter: server");
        await_line(&mut top, "server-1");
        // The sequence of an arrow is no escape.
        top.write("\u{1b}[Br");
        await_line(&mut top, "by rate; filter: server");
        top.write("\u{1b}");
        await_line(&mut top, "by rate; / filters");
        top.write("/端\r");
        await_line(&mut top, "filter: 端");
        top.write("q");
        let end = top.end();
        assert_eq!(end.code, Some(0), "{end:?}");
        assert!(!end.stdout.concat().contains("agent-1"), "{end:?}");
        assert_eq!(
            end.stdout.last().map(|line| line.trim_end().ends_with("same")),
            Some(true),
            "{end:?}"
        );
    });
}

#[test]
fn it_stops_and_continues() {
    within(LIMIT, || {
        let all = Deployment::start(SHORT);
        let args = all.args(&["top", "--topic", "D", "--interval", "0.2"]);
        let is_same = "[ $before = $(stty -g) ] && echo same";
        let after = format!("echo stopped $?; {is_same}; fg >/dev/null; echo ended $?; {is_same}");
        let mut top = on_a_terminal("cols 100 rows 20", "before=$(stty -g); set -m;", &args, &after);
        await_line(&mut top, "agent-1");
        top.write("\u{1a}");
        // The other screen is left, with the cursor.
        let mut left = String::new();
        while !left.contains("stopped 148") {
            left += &top.line();
        }
        assert!(left.contains("\u{1b}[?25h\u{1b}[?1049l"), "{left:?}");
        await_line(&mut top, "same");
        let again = await_line(&mut top, "addresses: ");
        assert!(again.contains("\u{1b}[?1049h\u{1b}[?25l"), "{again:?}");
        await_line(&mut top, "agent-1");
        top.write("q");
        await_line(&mut top, "ended 0");
        assert_eq!(top.line().trim_end(), "same");
        assert_eq!(top.end().code, Some(0));
    });
}

/// The terminal's key for a core dump.
#[test]
fn a_quit_leaves_the_terminal_as_it_was() {
    within(LIMIT, || {
        let same = "echo ended $?; [ $before = $(stty -g) ] && echo same";
        let mut top = on_a_terminal("cols 100 rows 20", "before=$(stty -g);", &nowhere(&[]), same);
        await_line(&mut top, "addresses: ");
        top.write("\u{1c}");
        let mut left = String::new();
        while !left.contains("ended 0") {
            left += &top.line();
        }
        assert!(left.contains("\u{1b}[?25h\u{1b}[?1049l"), "{left:?}");
        await_line(&mut top, "same");
    });
}

#[test]
fn rows_beyond_a_screen_of_unknown_size_are_reached() {
    within(LIMIT, || {
        let all = Deployment::start(SHORT);
        let mut args = all.args(&["top", "--interval", "0.2"]);
        args.extend((10..50).map(|topic| format!("--topic t{topic}")));
        let mut top = on_a_terminal("cols 0 rows 0", "", &args, "");
        // As on one of 80 columns and 24 lines.
        let line = await_line(&mut top, "addresses: 1, publishers: 1");
        let summary = line[line.rfind("by kind").unwrap()..].trim_end();
        assert!(summary.ends_with('…') && summary.chars().count() == 80, "{summary:?}");
        await_line(&mut top, "1 to 21 of 4");
        top.write("\u{1b}[F");
        await_line(&mut top, "server-1");
        top.write("\u{1b}OH\u{1b}[6~\u{1b}OA");
        await_line(&mut top, "21 to 41 of 4");
        top.write("q");
        assert_eq!(top.end().code, Some(0));
    });
}

#[test]
fn warnings_are_a_line_of_the_screen() {
    within(LIMIT, || {
        let mut top = on_a_terminal("cols 60 rows 20", "", &nowhere(&[]), "");
        let warning = await_line(&mut top, "tablecast: warning: unavailable: the watch of table");
        assert!(warning.trim_end().ends_with('…'), "{warning:?}");
        top.write("q");
        let end = top.end();
        // Whole once the screen is gone.
        let is_whole = |line: &String| line.contains("tablecast: warning: ") && !line.contains('…');
        assert!(end.stdout.iter().any(is_whole), "{end:?}");
        assert_eq!(end.code, Some(0));
    });
}

#[test]
fn no_line_is_longer_than_a_narrow_terminal() {
    within(LIMIT, || {
        let all = Deployment::start(SHORT);
        let args = all.args(&["top", "--topic", "D", "--interval", "0.2"]);
        let mut top = on_a_terminal("cols 60 rows 20", "", &args, "");
        let summary = loop {
            let line = top.line();
            if let Some(at) = line.find("addresses: ") {
                break line[at..].trim_end().to_owned();
            }
        };
        top.write("q");
        assert_eq!(top.end().code, Some(0));
        let shown = summary.split('\u{1b}').next().unwrap();
        assert!(shown.chars().count() <= 60 && shown.ends_with('…'), "{shown:?}");
    });
}
