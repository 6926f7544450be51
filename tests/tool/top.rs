//! `tablecast top`: once, in a pipe, and on a pseudoterminal with keys.

use std::process::Command;
use std::time::Duration;

use crate::common::within;
use crate::process::{Process, run, tablecast};
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);

/// A service, a replica, and a listener that discover each other through a store.
struct Deployment {
    folder: TempDir,
    _processes: Vec<Process>,
}

impl Deployment {
    fn start() -> Deployment {
        let folder = tempfile::tempdir().unwrap();
        let mut all = Deployment {
            folder,
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
            "1500",
            "--listener-timeout-ms",
            "1500",
        ];
        args.iter().chain(&options).map(|arg| (*arg).to_owned()).collect()
    }
}

#[test]
fn a_deployment_is_shown_as_a_table_and_as_json() {
    within(LIMIT, || {
        let all = Deployment::start();
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
fn keys_choose_and_the_terminal_is_as_it_was() {
    within(LIMIT, || {
        let all = Deployment::start();
        let tool = env!("CARGO_BIN_EXE_tablecast");
        let args = all.args(&["top", "--topic", "D", "--interval", "0.2"]).join(" ");
        let mut command = Command::new("script");
        let inside =
            format!("stty cols 100 rows 20; before=$(stty -g); {tool} {args}; [ $before = $(stty -g) ] && echo same");
        command.args(["-qec", &inside, "/dev/null"]).env("NO_COLOR", "1");
        let mut top = Process::start(command);
        let await_line = |top: &mut Process, text: &str| {
            while !top.line().contains(text) {}
        };
        await_line(&mut top, "updates/s: 0.0; by kind; / filters, q ends");
        await_line(&mut top, "agent-1");
        top.write("n/server\r");
        await_line(&mut top, "by name; filter: server");
        await_line(&mut top, "server-1");
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
fn no_line_is_longer_than_a_narrow_terminal() {
    within(LIMIT, || {
        let all = Deployment::start();
        let tool = env!("CARGO_BIN_EXE_tablecast");
        let args = all.args(&["top", "--topic", "D", "--interval", "0.2"]).join(" ");
        let mut command = Command::new("script");
        command.args(["-qec", &format!("stty cols 60 rows 20; {tool} {args}"), "/dev/null"]);
        command.env("NO_COLOR", "1");
        let mut top = Process::start(command);
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
