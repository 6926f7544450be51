//! The Debian package on a system of its own: installed, upgraded while updates pass, removed, purged.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{eventually, folder_for_system, skip, within};
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
        skip(format!("no system of its own here: {}", process.stderr()));
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
        skip("no dpkg-deb here");
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
        // Each option stands there once, and those that the package sets are options.
        let options = system.run("sed -n 's/^#\\?\\([a-z_0-9]*\\) = .*/\\1/p' /usr/share/doc/tablecast/options.toml");
        let names: BTreeSet<_> = options.iter().map(String::as_str).collect();
        assert_eq!(names, Config::options().iter().map(|option| option.name).collect());
        assert_eq!(options.len(), names.len(), "{options:#?}");
        system.run(&format!(
            "tablecast config --config {CONFIG} | grep -q /var/lib/tablecast/tables.db"
        ));
        system.run("tablecast --version && ! command -v man || man -l /usr/share/man/man1/tablecast-watch.1.gz | grep -q -- --count");
        assert_eq!(
            system.run(&format!("stat -c %U:%G:%a {CONFIG}")),
            ["root:tablecast:640"]
        );
        system.run("grep -q libzmq /usr/share/doc/tablecast/copyright && grep -q '^ serde v' /usr/share/doc/tablecast/copyright");
        system.run("bash -n /usr/share/bash-completion/completions/tablecast");
        system.run("! systemctl --version || systemd-analyze verify /usr/lib/systemd/system/tablecast.service");
        // What systemd makes for the unit.
        system.run("install -d -o tablecast -g tablecast -m 750 /run/tablecast");
        system.run("install -d -o tablecast -g tablecast -m 700 /var/lib/tablecast");
        system.run(SERVE);
        let is_writer = "setpriv --reuid=1234 --regid=1234 --groups=";
        let publish = format!("tablecast publish --config {CONFIG} --table t --key");
        system.run(&format!(
            "{is_writer}$(getent group tablecast | cut -d: -f3) {publish} k"
        ));
        let (_, code) = system.try_run(&format!("{is_writer}1234 {publish} k"));
        assert_eq!(code, "1", "a stranger may publish");

        begin_load(&mut system);
        system.run(&format!("sed -i '1i linger_ms = 600' {CONFIG} && chmod 600 {CONFIG}"));
        upgrade(&mut system);
        system.run(&format!("grep -q '^linger_ms = 600' {CONFIG}"));
        assert_eq!(system.run(&format!("stat -c %a {CONFIG}")), ["600"]);
        system.run(&format!("chmod 640 {CONFIG}"));
        system.run(STOP);
        system.run(SERVE);
        end_load(&mut system);
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
        system.run("echo ARGS=--metrics 9464 >>/etc/default/tablecast && systemctl restart tablecast");
        let forwarded = |system: &mut System| {
            let scrape = "exec 3<>/dev/tcp/127.0.0.1/9464; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
            let lines = system.run(&format!("bash -c \"{}\"", scrape.replace('"', "\\\"")));
            let line = lines
                .iter()
                .find_map(|line| line.strip_prefix("tablecast_service_forwarded_frames_total "));
            line.expect("no metrics").parse::<f64>().unwrap()
        };
        begin_load(&mut system);
        eventually(LIMIT, || forwarded(&mut system) > 0.0);
        upgrade(&mut system);
        let second = system.run("systemctl show -P MainPID tablecast").concat();
        assert_ne!(first, second, "an upgrade restarts the service");
        end_load(&mut system);
        assert!(forwarded(&mut system) > 0.0);
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

/// Publishes updates with rising keys, as fast as a shell can, beside a watch.
fn begin_load(system: &mut System) {
    system.run(&format!(
        "tablecast watch --config {CONFIG} >/watched 2>/watched.log & echo $! >/watching"
    ));
    system.run("until grep -q ready /watched.log; do sleep 0.02; done");
    let publish = format!("tablecast publish --config {CONFIG} --table t --key");
    system.run(&format!(
        "(n=0; until [ -e /enough ]; do n=$((n+1)); {publish} $n >/dev/null 2>&1 && echo $n >>/published; done; \
         until {publish} last; do sleep 0.02; done) >/dev/null 2>&1 & until [ -s /published ]; do sleep 0.02; done"
    ));
}

/// Installs a newer version, whose list of options is another. Nobody is there to be asked.
fn upgrade(system: &mut System) {
    system.run(
        "dpkg-deb --raw-extract /package.deb /newer && sed -i 's/^Version: .*/Version: 9.0.0/' /newer/DEBIAN/control && \
         echo '#another = 1' >>/newer/usr/share/doc/tablecast/options.toml && dpkg-deb -Znone --build /newer /newer.deb >&2",
    );
    system.run("dpkg --no-triggers --install /newer.deb </dev/null >&2");
    assert_eq!(system.run("dpkg-query -W -f='${Version}\\n' tablecast"), ["9.0.0"]);
}

/// Ends the load some time after the restart. What is missing in the watch was published before its last sync event.
fn end_load(system: &mut System) {
    // The first sync event comes at the beginning.
    system.run(r#"until [ $(grep -c '"event":"sync"' /watched) -gt 1 ]; do sleep 0.02; done"#);
    // Once the watch hears what was published since, and after the last sync event, it hears the last one too.
    let since =
        r#"since() { awk '/"event":"sync"/ { text = "" } { text = text "\n" $0 } END { print text }' /watched; }"#;
    let heard = r#"n=$(tail -n 1 /published); [ $n -gt $((mark + 1)) ] && since | grep -q "\"key\":\"$n\"""#;
    system.run(&format!(
        "{since}; mark=$(tail -n 1 /published); until {heard}; do sleep 0.02; done; touch /enough"
    ));
    system.run("until grep -q '\"key\":\"last\"' /watched; do sleep 0.02; done");
    let number = |key: &str| key.parse::<u64>().ok();
    let published: BTreeSet<u64> = system
        .run("cat /published")
        .iter()
        .filter_map(|key| number(key))
        .collect();
    let mut missing = published.clone();
    let mut seen_since = u64::MAX;
    for line in system.run("cat /watched") {
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == "sync" {
            seen_since = u64::MAX;
        } else if let Some(key) = event["key"].as_str().and_then(number) {
            missing.remove(&key);
            seen_since = seen_since.min(key);
        }
    }
    let silent: Vec<_> = missing.range(seen_since..).collect();
    assert!(silent.is_empty(), "missing after the last sync event: {silent:?}");
    assert!(
        published.range(seen_since..).count() > 1,
        "nothing was seen after the restart"
    );
    system.run(
        "rm /enough /published; kill $(cat /watching); while kill -0 $(cat /watching) 2>/dev/null; do sleep 0.02; done",
    );
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
