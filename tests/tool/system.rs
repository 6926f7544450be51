//! Systems of their own that packages are installed on.
#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{pass, skip};
use crate::process::{LIMIT, Process};
use tempfile::TempDir;

/// A system that begins as a copy of this one, with a network of its own and this one's Prometheus; or as one of the folder
/// `TABLECAST_TEST_SYSTEM`, such as that of `debootstrap --variant=minbase --include=systemd,adduser,procps,iproute2`.
const SYSTEM: &str = r#"
set -e
PATH=$PATH:/usr/sbin:/sbin folder=$1
ip link set lo up
mount -t tmpfs none "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay -o "lowerdir=$3,upperdir=$folder/upper,workdir=$folder/work" none "$folder/root"
mount --rbind /dev "$folder/root/dev"
mount -t proc none "$folder/root/proc"
cp "$2" "$folder/root/package.deb"
for program in prometheus promtool; do
    if at=$(command -v $program); then
        touch "$folder/root/usr/bin/$program"
        mount --bind "$at" "$folder/root/usr/bin/$program"
    fi
done
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

pub(crate) struct System {
    process: Process,
    _cgroup: Option<Cgroup>,
}

/// The root of the system that others begin as.
fn origin() -> OsString {
    std::env::var_os("TABLECAST_TEST_SYSTEM").unwrap_or_else(|| "/".into())
}

/// A group of processes that is gone with the test.
struct Cgroup(PathBuf);

impl Cgroup {
    /// In that of this process, for the system in this folder.
    fn new(place: &Path) -> Cgroup {
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
        let place = place.display().to_string().replace('/', "-");
        Cgroup(root.join(mine).join(format!("tablecast-test{place}")))
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
            pass(Duration::from_millis(20));
        }
    }
}

impl System {
    /// One with the package as `/package.deb`. `None`, and a word why, where this user may not have one.
    pub(crate) fn start(folder: &TempDir) -> Option<System> {
        let (place, package) = packed(folder)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]);
        command.args(["sh", "-c", &format!("{SYSTEM}{RUN}"), "sh"]);
        command.arg(place).arg(package).arg(origin());
        System::up(command, None)
    }

    /// One that systemd manages.
    pub(crate) fn managed(folder: &TempDir) -> Option<System> {
        let (place, package) = packed(folder)?;
        let cgroup = Cgroup::new(&place);
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
        command.arg(place).arg(package).arg(origin());
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
    pub(crate) fn try_run(&mut self, command: &str) -> (Vec<String>, String) {
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
    pub(crate) fn run(&mut self, command: &str) -> Vec<String> {
        let (lines, code) = self.try_run(command);
        if code != "0" {
            let journal = self.try_run("journalctl --no-pager --lines 50").0;
            panic!("{command}: {code}: {lines:#?} {} {journal:#?}", self.process.stderr());
        }
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
