//! The Debian package on a system of its own: installed, upgraded while updates pass, removed, purged.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{eventually, folder_for_system, within};
use crate::process::{LIMIT, Process};
use crossbeam_channel::never;
use serde_json::Value;
use tablecast::Config;
use tempfile::TempDir;

/// A system that begins as a copy of this one, with a network of its own.
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
cd "$folder/root"
commands='cd /; echo up; while read -r line; do code=0; sh -c "$line" || code=$?; echo "done $code"; done'
"#;

/// It runs the commands that it reads, and prints `done` and the exit code after each.
const RUN: &str = r#"exec chroot . sh -c "$commands""#;

/// It runs systemd too, which changes nothing of the kernel.
const MANAGE: &str = r#"
mount --bind -o ro proc/sys proc/sys
mount -t sysfs -o ro none sys
mount -t tmpfs none sys/fs/cgroup
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 none sys/fs/cgroup
else
    mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd none sys/fs/cgroup/systemd
fi
mount -t tmpfs none run
rm -f usr/sbin/policy-rc.d
for unit in usr/lib/systemd/system/sysinit.target.wants/*; do ln -sf /dev/null "etc/systemd/system/${unit##*/}"; done
exec 3<&0
chroot . sh -c "until systemctl is-system-running | grep -q 'running\|degraded'; do sleep 0.02; done 2>/dev/null; $commands" <&3 &
exec 3<&-
exec env container=test chroot . /usr/lib/systemd/systemd --system --unit=sysinit.target >/dev/null 2>&1
"#;

struct System {
    process: Process,
    _cgroup: Option<Cgroup>,
}

/// A group of processes that is gone with the test.
struct Cgroup(PathBuf);

impl Cgroup {
    /// In that of this process.
    fn new() -> Cgroup {
        let root = Path::new("/sys/fs/cgroup");
        let (root, begin) = match root.join("cgroup.controllers").exists() {
            true => (root.to_owned(), "0::/"),
            false => (root.join("systemd"), "name=systemd:/"),
        };
        let mine = fs::read_to_string("/proc/self/cgroup").unwrap();
        let mine = mine
            .lines()
            .find_map(|line| Some(line.split_once(begin)?.1))
            .unwrap_or("");
        Cgroup(root.join(mine).join(format!("tablecast-test-{}", std::process::id())))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its processes may be ending yet.
        for _ in 0..500 {
            let mut find = Command::new("find");
            find.arg(&self.0)
                .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]);
            if !self.0.exists() || (find.output().is_ok() && !self.0.exists()) {
                return;
            }
            let _ = never::<()>().recv_timeout(Duration::from_millis(20));
        }
    }
}

impl System {
    /// `None`, and a word why, where this user may not have one.
    fn start(folder: &Path, package: &Path) -> Option<System> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]);
        command.args(["sh", "-c", &format!("{SYSTEM}{RUN}"), "sh"]);
        command.arg(folder).arg(package);
        System::up(command, None)
    }

    /// One that systemd manages.
    fn managed(folder: &Path, package: &Path) -> Option<System> {
        let cgroup = Cgroup::new();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "mkdir \"$1\" && echo $$ >\"$1/cgroup.procs\" && shift && exec \"$@\"",
            "sh",
        ]);
        command.arg(&cgroup.0);
        command.args([
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--ipc",
            "--cgroup",
            "--fork",
            "--kill-child",
        ]);
        command.args(["sh", "-c", &format!("{SYSTEM}{MANAGE}"), "sh"]);
        command.arg(folder).arg(package);
        System::up(command, Some(cgroup))
    }

    fn up(command: Command, cgroup: Option<Cgroup>) -> Option<System> {
        let mut process = Process::start(command);
        if process.line_by(Instant::now() + LIMIT).is_some() {
            return Some(System {
                process,
                _cgroup: cgroup,
            });
        }
        assert!(!process.is_running(), "it does not come up: {}", process.stderr());
        println!("skipped: no system of its own here: {}", process.stderr());
        None
    }

    /// Runs a command. Returns the lines it has printed, and its exit code.
    fn try_run(&mut self, command: &str) -> (Vec<String>, String) {
        self.process.write(&format!("{command}\n"));
        let mut lines = Vec::new();
        loop {
            let line = self.process.line();
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
        assert_eq!(code, "0", "{command}: {lines:#?} {}", self.process.stderr());
        lines
    }
}

fn build(folder: &Path) -> PathBuf {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/debian/build");
    let built = Command::new(build)
        .arg(folder)
        .arg(env!("CARGO_BIN_EXE_tablecast"))
        // Takes longest.
        .env("DPKG_DEB_COMPRESSOR_TYPE", "none")
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

/// There is no journal. Tells why a service is in another state.
const LOG: &str = "d=/run/systemd/system/tablecast.service.d; mkdir -p $d; \
    printf '[Service]\\nStandardOutput=append:/said\\nStandardError=append:/said\\n' >$d/log.conf";
const SAID: &str = "systemctl status tablecast; tail -n 20 /said";

/// A package, and a folder for a system; `None` where there is no `dpkg`.
fn packed(folder: &TempDir) -> Option<(PathBuf, PathBuf)> {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        println!("skipped: no dpkg-deb here");
        return None;
    }
    let place = folder.path().join("system");
    fs::create_dir(&place).unwrap();
    Some((place, build(&folder.path().join("package"))))
}

#[test]
fn a_package_is_installed_upgraded_removed_and_purged() {
    within(6 * LIMIT, || {
        let folder = folder_for_system();
        let Some((place, package)) = packed(&folder) else {
            return;
        };
        let Some(mut system) = System::start(&place, &package) else {
            return;
        };
        // As on a host that has none of it.
        system.run("! id tablecast && ! command -v tablecast");
        system.run("dpkg --no-triggers --install /package.deb");
        // Each option stands there once.
        let options = system.run(&format!("sed -n 's/^#\\?\\([a-z_0-9]*\\) = .*/\\1/p' {CONFIG}"));
        let names: BTreeSet<_> = options.iter().map(String::as_str).collect();
        assert_eq!(names, Config::options().iter().map(|option| option.name).collect());
        assert_eq!(options.len(), names.len(), "{options:#?}");
        system.run("tablecast --version && ! command -v man || man -l /usr/share/man/man1/tablecast-watch.1.gz | grep -q -- --count");
        assert_eq!(
            system.run(&format!("stat -c %U:%G:%a {CONFIG}")),
            ["root:tablecast:640"]
        );
        system.run("grep -q libzmq /usr/share/doc/tablecast/copyright && grep -q '^ serde v' /usr/share/doc/tablecast/copyright");
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
        system.run(&format!("sed -i '1i linger_ms = 600' {CONFIG} && chmod 600 {CONFIG}"));
        system.run("dpkg --no-triggers --install /package.deb");
        system.run(&format!("grep -q '^linger_ms = 600' {CONFIG}"));
        assert_eq!(system.run(&format!("stat -c %a {CONFIG}")), ["600"]);
        system.run(&format!("chmod 640 {CONFIG}"));
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
        system.run("dpkg --no-triggers --remove tablecast");
        system.run(&format!(
            "[ -e {CONFIG} ] && ! [ -e /usr/bin/tablecast ] && ! [ -e /usr/lib/systemd/system/tablecast.service ]"
        ));
        system.run("dpkg --no-triggers --purge tablecast");
        system.run("! ls -d /etc/tablecast /etc/default/tablecast /var/lib/tablecast 2>/dev/null && ! id tablecast");
    });
}

#[test]
fn an_upgrade_leaves_the_service_as_the_administrator_has_it() {
    within(6 * LIMIT, || {
        let folder = folder_for_system();
        let Some((place, package)) = packed(&folder) else {
            return;
        };
        let Some(mut system) = System::managed(&place, &package) else {
            return;
        };
        system.run(LOG);
        let first = install(&mut system, "active enabled");
        let second = install(&mut system, "active enabled");
        assert_ne!(first, second, "an upgrade restarts the service");
        system.run("systemctl stop tablecast");
        install(&mut system, "inactive enabled");
        system.run("systemctl disable tablecast 2>&1");
        install(&mut system, "inactive disabled");
        system.run("systemctl start tablecast");
        assert_ne!(install(&mut system, "active disabled"), "0");
        system.run("systemctl enable tablecast 2>&1");

        // One that cannot start is no reason to fail.
        system.run(&format!("sed -i '1i no_option = 1' {CONFIG}"));
        system.run("dpkg --no-triggers --install /package.deb >&2");
        system.run("! systemctl is-active --quiet tablecast && dpkg --status tablecast | grep -q 'ok installed'");
        system.run("dpkg --no-triggers --remove tablecast >&2 && ! systemctl is-active --quiet tablecast");
        system.run("dpkg --no-triggers --install /package.deb >&2");
        system.run("! systemctl is-active --quiet tablecast && dpkg --status tablecast | grep -q 'ok installed'");

        // One that has failed may work now; after a removal it begins anew.
        system.run(&format!("sed -i 1d {CONFIG}"));
        install(&mut system, "active enabled");
        system.run("dpkg --no-triggers --remove tablecast >&2");
        install(&mut system, "active enabled");
        system.run("dpkg --no-triggers --purge tablecast >&2");
        system.run("! find /etc/systemd /var/lib/systemd /run/tablecast* -name '*tablecast*' | grep .");
    });
}

/// Installs the package over what is there, without the index of manual pages, which takes longest. The service is in this state then; returns its process.
#[track_caller]
fn install(system: &mut System, state: &str) -> String {
    system.run("dpkg --no-triggers --install /package.deb >&2");
    let states = system
        .try_run("systemctl is-active tablecast; systemctl is-enabled tablecast")
        .0;
    assert_eq!(states.join(" "), state, "{:#?}", system.try_run(SAID).0);
    system.run("systemctl show -P MainPID tablecast").concat()
}
