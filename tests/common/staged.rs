//! Commands of the tool that start processes of their own, and the processes left behind.
#![allow(dead_code, reason = "every test target uses a part of it")]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::common::eventually;

/// More than a process takes to start on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// A running command with a folder for temporary files of its own, which also identifies its processes.
pub(crate) struct Staged {
    child: Child,
    folder: TempDir,
}

impl Staged {
    pub(crate) fn start(mut command: Command) -> Staged {
        let folder = TempDir::new().unwrap();
        command.env("TMPDIR", folder.path());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        Staged { child, folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end, and checks that nothing is left behind.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let mut output = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        let status = self.child.wait().unwrap();
        // A killed process that has lost its parent takes a moment to disappear.
        let patience = Duration::from_secs(5);
        eventually(patience, || processes(self.folder.path(), "").is_empty());
        assert_eq!(fs::read_dir(self.folder.path()).unwrap().count(), 0);
        (status, output)
    }

    /// Waits until there are this many processes with `word` on their command line.
    pub(crate) fn wait_for(&self, word: &str, count: usize) -> Vec<Pid> {
        eventually(LONG, || processes(self.folder.path(), word).len() >= count);
        processes(self.folder.path(), word)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processes with `word` on their command line that have this folder in their environment, or work in it (a Redis
/// server overwrites its environment).
pub(crate) fn processes(folder: &Path, word: &str) -> Vec<Pid> {
    let works_in = |path: &Path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    let named = format!("TMPDIR={}\0", folder.display());
    let contains = |file, text: &str| {
        let content = fs::read(file).unwrap_or_default();
        String::from_utf8_lossy(&content).contains(text)
    };
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let ours = all.filter(|path| contains(path.join("environ"), &named) || works_in(path));
    let ours = ours.filter(|path| contains(path.join("cmdline"), word));
    let pids = ours.map(|path| Pid::from_raw(path.file_name().unwrap().to_str().unwrap().parse().unwrap()));
    pids.collect()
}
