//! The Debian package on a system of its own: installed, upgraded while updates pass, removed, purged.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{eventually, within};
use crate::process::{LIMIT, Process};
use serde_json::Value;

/// A system that begins as a copy of this one, with a network of its own. It runs the commands that it reads, and prints
/// `done` and the exit code after each.
const SYSTEM: &str = r#"
set -e
PATH=$PATH:/usr/sbin:/sbin folder=$1
ip link set lo up
mount -t tmpfs none "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" none "$folder/root"
mount --rbind /dev "$folder/root/dev"
mount -t proc none "$folder/root/proc"
cp "$2" "$folder/root/package.deb"
exec chroot "$folder/root" sh -c 'cd /; while read -r line; do code=0; sh -c "$line" || code=$?; echo "done $code"; done'
"#;

struct System(Process);

impl System {
    /// `None`, and a word why, where this user may not have one.
    fn start(folder: &Path, package: &Path) -> Option<System> {
        let start = || {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]);
            command.args(["sh", "-c", SYSTEM, "sh"]).arg(folder).arg(package);
            Process::start(command)
        };
        let trial = start().end();
        if trial.code == Some(0) {
            return Some(System(start()));
        }
        println!("skipped: no system of its own here: {}", trial.stderr);
        None
    }

    /// Runs a command. Returns the lines it has printed, and its exit code.
    fn try_run(&mut self, command: &str) -> (Vec<String>, String) {
        self.0.write(&format!("{command}\n"));
        let mut lines = Vec::new();
        loop {
            let line = self.0.line();
            match line.strip_prefix("done ") {
                Some(code) => return (lines, code.to_owned()),
                None => lines.push(line),
            }
        }
    }

    /// Runs a command, which succeeds. Returns the lines it has printed.
    #[track_caller]
    fn run(&mut self, command: &str) -> Vec<String> {
        let (lines, code) = self.try_run(command);
        assert_eq!(code, "0", "{command}: {lines:#?} {}", self.0.stderr());
        lines
    }
}

fn build(folder: &Path) -> PathBuf {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/debian/build");
    let built = Command::new(build)
        .arg(folder)
        .arg(env!("CARGO_BIN_EXE_tablecast"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{errors}");
    String::from_utf8(built.stdout).unwrap().trim_end().into()
}

/// As the unit starts it.
const SERVE: &str = "setpriv --reuid=tablecast --regid=tablecast --init-groups \
    $(sed -n 's/^ExecStart=//; s/ [$]ARGS//p' /usr/lib/systemd/system/tablecast.service) >/served 2>&1 & echo $! >/pid; \
    until grep -q ^ready /served; do kill -0 $(cat /pid) || exit 1; sleep 0.02; done";
const STOP: &str = "kill $(cat /pid); while kill -0 $(cat /pid) 2>/dev/null; do sleep 0.02; done";
const CONFIG: &str = "/etc/tablecast/tablecast.toml";

#[test]
fn a_package_is_installed_upgraded_removed_and_purged() {
    within(6 * LIMIT, || {
        if Command::new("dpkg-deb").arg("--version").output().is_err() {
            println!("skipped: no dpkg-deb here");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let package = build(&folder.path().join("package"));
        let place = folder.path().join("system");
        fs::create_dir(&place).unwrap();
        let Some(mut system) = System::start(&place, &package) else {
            return;
        };
        // As on a host that has none of it.
        system.run("! id tablecast && ! command -v tablecast");
        system.run("dpkg --install /package.deb");
        system.run("tablecast --version && ! command -v man || man -l /usr/share/man/man1/tablecast-watch.1.gz | grep -q -- --count");
        system.run("bash -n /usr/share/bash-completion/completions/tablecast");
        system.run("! systemctl --version || systemd-analyze verify /usr/lib/systemd/system/tablecast.service");
        // What systemd makes for the unit.
        system.run("install -d -o tablecast -g tablecast -m 750 /run/tablecast /var/lib/tablecast");
        system.run(SERVE);
        let is_writer = "setpriv --reuid=1234 --regid=1234 --groups=";
        let publish = format!("tablecast publish --config {CONFIG} --table t --key");
        system.run(&format!(
            "{is_writer}$(getent group tablecast | cut -d: -f3) {publish} k"
        ));
        let (_, code) = system.try_run(&format!("{is_writer}1234 {publish} k"));
        assert_eq!(code, "1", "a stranger may publish");

        system.run(&format!(
            "tablecast watch --config {CONFIG} >/watched 2>/watched.log & sleep 0"
        ));
        system.run("until grep -q ready /watched.log; do sleep 0.02; done");
        let load = format!(
            "(n=0; until [ -e /enough ]; do n=$((n+1)); {publish} $n >/dev/null 2>&1 && echo $n >>/published; done; \
             until {publish} last; do sleep 0.02; done) >/dev/null 2>&1 & until [ -s /published ]; do sleep 0.02; done"
        );
        system.run(&load);
        system.run(&format!("sed -i '1i linger_ms = 600' {CONFIG}"));
        system.run("dpkg --install /package.deb");
        system.run(&format!("grep -q '^linger_ms = 600' {CONFIG}"));
        system.run(STOP);
        system.run(SERVE);
        // Once the watch hears what was published since, it hears the last one too.
        system.run(
            r#"mark=$(tail -n 1 /published); until n=$(tail -n 1 /published); [ $n -gt $((mark + 1)) ] && grep -q "\"key\":\"$n\"" /watched; do sleep 0.02; done; touch /enough"#,
        );
        system.run("until grep -q '\"key\":\"last\"' /watched; do sleep 0.02; done");
        let published = system.run("cat /published");
        eventually(LIMIT, || {
            let watched = system.run("cat /watched");
            let events: Vec<Value> = watched.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            let seen: BTreeSet<_> = events.iter().filter_map(|event| event["key"].as_str()).collect();
            let all_seen = published.iter().all(|key| seen.contains(key.as_str()));
            // The first one is told at the beginning.
            all_seen || events.iter().filter(|event| event["event"] == "sync").count() > 1
        });
        system.run("kill $(pgrep -x tablecast); while pgrep -x tablecast; do sleep 0.02; done");
        system.run("dpkg --remove tablecast");
        system.run(&format!(
            "[ -e {CONFIG} ] && ! [ -e /usr/bin/tablecast ] && ! [ -e /usr/lib/systemd/system/tablecast.service ]"
        ));
        system.run("dpkg --purge tablecast");
        system.run("! ls -d /etc/tablecast /etc/default/tablecast /var/lib/tablecast 2>/dev/null && ! id tablecast");
    });
}
