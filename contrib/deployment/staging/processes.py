"""Programs that are kept running, as supervisor does, from its own files."""

import configparser
import queue
import signal
import subprocess
import threading
import time

# Pause before a program that ended is started again, in seconds.
PAUSE = 0.2


class Process:
    """A program, started again whenever it ends. `on_line` takes the lines of its stdout, and None before it begins."""

    def __init__(self, host, name, command, log, on_line=None, stdin=subprocess.DEVNULL):
        self.host, self.name, self.command, self.on_line, self.stdin = host, name, command, on_line, stdin
        self.log = open(log, "ab")
        self.child = None
        self.may_run = threading.Event()
        self.may_run.set()
        threading.Thread(target=self.keep_running, daemon=True).start()

    def keep_running(self):
        stdout = self.log if self.on_line is None else subprocess.PIPE
        while True:
            self.may_run.wait()
            if self.on_line is not None:
                self.on_line(None)
            self.child = self.host.start(*self.command, stdin=self.stdin, stdout=stdout, stderr=self.log)
            for line in self.child.stdout or ():
                self.on_line(line.decode())
            self.child.wait()
            time.sleep(PAUSE)

    def kill(self, number=signal.SIGKILL):
        self.child.send_signal(number)

    def hold_down(self):
        """Kills it, and does not start it again until `release`."""
        self.may_run.clear()
        self.kill()

    def release(self):
        self.may_run.set()


class Dialogue:
    """A program that answers each line of its stdin with a line."""

    def __init__(self, host, name, command, log):
        self.answers = queue.Queue()
        self.process = Process(host, name, command, log, self.hear, subprocess.PIPE)

    def hear(self, line):
        # Whatever was asked of the one before is not answered any more.
        self.answers.put("failed: it was started again" if line is None else line.strip())

    def ask(self, line, timeout):
        """The answer, or the reason why there is none."""
        while not self.answers.empty():
            self.answers.get()
        try:
            self.process.child.stdin.write(f"{line}\n".encode())
            self.process.child.stdin.flush()
            return self.answers.get(timeout=timeout)
        except queue.Empty:
            # A late answer would be taken for that of the next question.
            self.process.kill()
            return "failed: no answer"
        except (OSError, AttributeError) as e:
            return f"failed: {e!r}"


def commands(file, host_name):
    """The name and the command of each program in a file of supervisor."""
    parser = configparser.RawConfigParser()
    with open(file) as lines:
        parser.read_file(lines)
    for section in parser.sections():
        program = dict(parser[section])
        first = int(program.get("numprocs_start", 0))
        for number in range(first, first + int(program.get("numprocs", 1))):
            known = {"process_num": number, "host_node_name": host_name}
            name = program.get("process_name", section.removeprefix("program:"))
            yield name % known, (program["command"] % known).split()
