"""Hosts as network namespaces around a bridge, in a process tree that ends as a whole."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

# Set in the process that has the namespaces, to its temporary folder.
INSIDE = "TABLECAST_STAGE_INSIDE"
NAMESPACES = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]

# A host has /run, /var/lib and a layer above /etc of its own. It lasts as long as its stdin is open.
HOST = """
set -e
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
mkdir -p /run/work /run/tablecast /var/lib/redis
cp -r "$1" /run/etc
mount -t overlay -o "lowerdir=/etc,upperdir=/run/etc,workdir=/run/work" none /etc
hostname "$2"
ip link set lo up
echo ready
exec cat
"""


class Forbidden(Exception):
    """This user, or this system, may not have namespaces."""


def enter():
    """Runs this program again in namespaces of its own, and exits with its code. Returns inside, with a temporary folder.
    Whatever ends either process, also a signal, ends all processes of the namespaces: the first one of them ends with its
    stdin, and the kernel kills the others."""
    if INSIDE in os.environ:
        threading.Thread(target=end_with_stdin, daemon=True).start()
        return Path(os.environ[INSIDE])
    unshare = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), *NAMESPACES]
    trial = subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", "/run"], capture_output=True, text=True)
    if trial.returncode != 0:
        raise Forbidden(trial.stderr.strip())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, INSIDE: folder}
        command = [*unshare, sys.executable, *sys.argv]
        inner = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
        try:
            sys.exit(inner.wait())
        finally:
            inner.stdin.close()
            inner.wait()


def end_with_stdin():
    while os.read(0, 4096):
        pass
    os._exit(1)


class Network:
    """A switch that all hosts are connected to."""

    def __init__(self):
        ip("link", "add", "switch", "type", "bridge")
        ip("link", "set", "switch", "up")


class Host:
    def __init__(self, name, address, etc, path):
        self.name, self.path = name, path
        command = ["unshare", "--net", "--mount", "--uts", "sh", "-c", HOST, "sh", etc, name]
        self.anchor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment())
        if self.anchor.stdout.readline() != b"ready\n":
            raise Forbidden(f"no host {name}")
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(self.anchor.pid))
        ip("link", "set", name, "up")
        self.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.heal()

    def environment(self):
        """Without options for tablecast from this one."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TABLECAST_", "RUST_LOG"))}
        return {**kept, "PATH": f"{self.path}:{os.environ['PATH']}:/usr/sbin:/sbin"}

    def start(self, *command, **options):
        enter = ["nsenter", "--target", str(self.anchor.pid), "--net", "--mount", "--uts", "--"]
        return subprocess.Popen([*enter, *command], env=self.environment(), **options)

    def run(self, *command, timeout=20):
        """Its output; an error is raised if it fails."""
        child = self.start(*command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            output, errors = child.communicate(timeout=timeout)
        finally:
            child.kill()
        if child.returncode != 0:
            raise subprocess.SubprocessError(f"{self.name}: {' '.join(command)}: {errors.strip()}")
        return output

    def cut(self):
        """Nothing passes any more, in silence."""
        ip("link", "set", self.name, "nomaster")

    def heal(self):
        ip("link", "set", self.name, "master", "switch")


def ip(*arguments):
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    subprocess.run(["ip", *arguments], check=True, env={**os.environ, "PATH": path})
