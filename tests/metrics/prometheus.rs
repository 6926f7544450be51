//! The alerts and the dashboard, in a Prometheus where there is one.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{eventually, skip, within};
use crate::dashboard::{filled, panels};
use crate::documents::queries;
use crate::host::{service, socket};
use crate::process::{Process, run};
use crate::tool::address;
use crate::whole::Whole;
use crate::{LIMIT, LONG};

/// False, and a word why, where this program is not installed.
fn has(program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").output().is_ok();
    if !is_there {
        skip(format!("no {program} here"));
    }
    is_there
}

fn here(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    path.to_str().unwrap().into()
}

#[test]
fn alerts_come_and_go_as_they_should() {
    within(LIMIT, || {
        if !has("promtool") {
            return;
        }
        let mut command = Command::new("promtool");
        command.args(["test", "rules", &here("tests/metrics/alerts.yml")]);
        let end = run(command);
        assert_eq!(end.code, Some(0), "{end:#?}");
    });
}

/// Those of the deployment to copy, with the alerts where they say.
#[test]
fn servers_of_the_deployment_take_their_files() {
    within(LIMIT, || {
        if !has("promtool") {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let put = |from: &str, name: &str| fs::copy(here(from), folder.path().join(name)).unwrap();
        put("contrib/prometheus/alerts.yml", "tablecast-alerts.yml");
        let mut instances = BTreeSet::new();
        for file in ["controller1.yml", "controller2.yml", "agents.yml"] {
            let text = fs::read_to_string(here(&format!("contrib/deployment/etc/prometheus/{file}"))).unwrap();
            for target in text.lines().filter(|line| line.contains("targets:")) {
                let (_, instance) = target.split_once("instance: ").unwrap();
                // One server may keep the metrics of all hosts.
                assert!(instances.insert(instance.to_owned()), "{target}");
            }
            put(&format!("contrib/deployment/etc/prometheus/{file}"), file);
            let mut command = Command::new("promtool");
            command.args(["check", "config"]).arg(folder.path().join(file));
            let end = run(command);
            assert_eq!(end.code, Some(0), "{end:#?}");
            assert!(end.stdout.concat().contains("rules found"), "{end:#?}");
        }
    });
}

/// A server that scrapes some processes.
struct Prometheus {
    process: Process,
    at: String,
}

impl Prometheus {
    fn start(folder: &Path, targets: &[&str]) -> Prometheus {
        let config = format!(
            "global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}\n\
             rule_files: [{}]\n\
             scrape_configs: [{{job_name: tablecast, static_configs: [{{targets: {targets:?}}}]}}]\n",
            here("contrib/prometheus/alerts.yml")
        );
        let file = folder.join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("prometheus");
        command.arg("--config.file").arg(&file);
        command.arg("--storage.tsdb.path").arg(folder.join("data"));
        command.arg("--web.listen-address=127.0.0.1:0");
        let mut process = Process::start(command);
        process.await_stderr("msg=\"Listening on\"");
        let said = process.stderr();
        let listening = said.lines().find(|line| line.contains("msg=\"Listening on\"")).unwrap();
        let at = listening.split("address=").nth(1).unwrap().to_owned();
        let server = Prometheus { process, at };
        eventually(LONG, || server.get("/-/ready").starts_with("HTTP/1.0 200"));
        server
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.at).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// What it answers to a question of its API.
    fn ask(&self, path: &str) -> Value {
        let answer = self.get(&format!("/api/v1/{path}"));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["status"], "success", "{path}: {body}");
        body["data"].clone()
    }

    fn query(&self, query: &str) -> Value {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        self.ask(&format!("query?query={escaped}"))["result"].clone()
    }

    /// The labels of the alerts of this name, also of those that wait for their time.
    fn alerts(&self, name: &str) -> Vec<Value> {
        let all = self.ask("alerts")["alerts"].as_array().unwrap().clone();
        let labels = all.into_iter().map(|alert| alert["labels"].clone());
        labels.filter(|labels| labels["alertname"] == name).collect()
    }
}

#[test]
fn every_panel_shows_data() {
    within(LIMIT, || {
        if !has("prometheus") {
            return;
        }
        let whole = Whole::start();
        whole.work();
        let servers = [&whole.service, &whole.node].map(|metrics| metrics.serve("0").unwrap());
        let targets = servers.each_ref().map(|server| server.address().to_string());
        let folder = tempfile::tempdir().unwrap();
        let mut server = Prometheus::start(folder.path(), &targets.each_ref().map(String::as_str));
        for query in panels() {
            eventually(LONG, || {
                whole.work();
                let data = server.query(&filled(&query));
                data.as_array().is_some_and(|data| !data.is_empty())
            });
        }
        server.process.signal("TERM");
        assert_eq!(server.process.end().code, Some(0));
        drop(servers);
        whole.stop();
    });
}

#[test]
fn a_server_alerts_on_errors_and_on_a_process_that_is_gone() {
    within(LIMIT, || {
        if !has("prometheus") {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut command = service(&socket(folder.path()));
        // It cannot register.
        command.args(["--metrics", "0", "--discover", "true", "--store", "redis"]);
        command.args(["--remote-db-hosts", "127.0.0.1:1"]);
        let mut service = Process::start(command);
        let target = address(&mut service).to_string();
        let mut server = Prometheus::start(folder.path(), &[&target]);
        eventually(LONG, || server.query("up")[0]["value"][1] == "1");
        eventually(LONG, || {
            let alerts = server.alerts("TablecastBackgroundErrors");
            let is_ours = |alert: &Value| alert["instance"] == *target && alert["kind"] == "unavailable";
            alerts.iter().any(is_ours)
        });
        eventually(LONG, || server.alerts("TablecastDown").is_empty());
        for query in queries() {
            server.query(&filled(&query));
        }
        service.kill();
        eventually(LONG, || {
            server
                .alerts("TablecastDown")
                .iter()
                .any(|alert| alert["instance"] == *target)
        });
        server.process.signal("TERM");
        assert_eq!(server.process.end().code, Some(0));
    });
}
