//! A publisher service, with processes that publish through it and others that watch.

// Each test crate uses a part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, publish, tablecast};

/// A publisher service on a free port.
pub(crate) struct Host {
    pub(crate) service: Process,
    pub(crate) folder: TempDir,
    pub(crate) network: String,
}

impl Host {
    pub(crate) fn start() -> Host {
        let folder = tempfile::tempdir().unwrap();
        let (service, network) = serve(&socket(folder.path()));
        Host {
            service,
            folder,
            network,
        }
    }

    pub(crate) fn publish(&self, args: &[&str]) -> Process {
        let mut command = publish(args);
        command
            .arg("--publisher-multiproc-socket")
            .arg(socket(self.folder.path()));
        Process::start(command)
    }

    pub(crate) fn watch(&self, args: &[&str]) -> Process {
        let mut command = tablecast(["watch", "--publisher", &self.network]);
        // A process that is starved for a while is neither silent nor lost.
        command.env("TABLECAST_HELLO_INTERVAL_MS", "20000");
        command.args(args);
        Process::start(command)
    }

    /// A watch that has reported that it is live.
    pub(crate) fn live_watch(&self, args: &[&str]) -> Process {
        let mut watch = self.watch(args);
        watch.await_stderr("ready");
        let connected = format!(
            r#"{{"event":"sync","reason":"connected","address":"{}"}}"#,
            self.network
        );
        assert_eq!(watch.line(), connected);
        watch
    }
}

pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join("publisher.sock")
}

pub(crate) fn service(socket: &Path) -> Command {
    let mut command = tablecast(["service", "--publisher-port", "0", "--publisher-multiproc-socket"]);
    command.arg(socket);
    command
}

/// A service and its network address.
pub(crate) fn serve(socket: &Path) -> (Process, String) {
    let mut service = Process::start(service(socket));
    let ready = service.line();
    let words: Vec<_> = ready.split(' ').collect();
    assert_eq!((words.len(), words[0]), (3, "ready"), "{ready}");
    assert!(
        words[1].starts_with("tcp://127.0.0.1:") && !words[1].ends_with(":0"),
        "{ready}"
    );
    assert_eq!(words[2], format!("ipc://{}", socket.display()));
    let network = words[1].to_owned();
    (service, network)
}

pub(crate) fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))
}
