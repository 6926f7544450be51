"""What is written, and what the agents hold of it."""

import json
import random
import threading
import time

from .processes import Dialogue

TABLE = "lport"
TENANTS = 5
# Rows of a writer, and its changes a second.
KEYS = 100
RATE = 50
# The longest that one write may take, in seconds: more than the time limits of the store and of sending.
PATIENCE = 30
PAUSE = 0.1


class Writer(threading.Thread):
    """Changes rows of its own at random. As a controller does, it knows what should be stored, and repeats a write until
    it is. `pause` makes it compare all its rows with the store: a failover of Redis may have lost some."""

    def __init__(self, host, command, log):
        super().__init__(daemon=True)
        self.name = f"writer on {host.name}"
        self.dialogue = Dialogue(host, self.name, command, log)
        # The wanted rows by key: topic and value.
        self.rows = {}
        self.keys = [f"{host.name}-{number}" for number in range(KEYS)]
        self.written = self.repaired = 0
        self.active, self.idle = threading.Event(), threading.Event()
        self.active.set()
        self.start()

    def run(self):
        for number in range(2**62):
            if not self.active.is_set():
                self.repaired += sum(self.settle(key) for key in self.keys)
                self.idle.set()
                self.active.wait()
            key = random.choice(self.keys)
            if key in self.rows and random.random() < 0.1:
                del self.rows[key]
            else:
                self.rows[key] = (topic(key), json.dumps({"number": number}))
            self.written += self.settle(key)
            time.sleep(1 / RATE)

    def settle(self, key):
        """Makes the store hold what is wanted of this row; true if that took a change."""
        wanted = self.rows.get(key)
        line = {"table": TABLE, "key": key, "topic": topic(key), "action": "delete" if wanted is None else "set"}
        if wanted is not None:
            line["value"] = wanted[1]
        while True:
            answer = self.dialogue.ask(json.dumps(line), PATIENCE)
            if not answer.startswith("failed: "):
                return not answer.startswith("unchanged")
            if answer.startswith("failed: not found"):
                if wanted is None:
                    return False
                line["action"] = "create"
            elif answer.startswith("failed: already exists"):
                line["action"] = "set"
            else:
                time.sleep(PAUSE)

    def pause(self):
        self.active.clear()

    def is_idle(self):
        return self.idle.is_set()

    def resume(self):
        self.idle.clear()
        self.repaired = 0
        self.active.set()


def topic(key):
    """Always the same for a key: of one tenant, or of all."""
    number = int(key.rpartition("-")[2])
    return "D" if number % 6 == 0 else f"tenant{number % TENANTS + 1}"


class Copy:
    """The rows that an agent has printed that it holds."""

    def __init__(self, topics):
        self.topics, self.rows = topics, {}

    def hear(self, line):
        """A line of the agent, or None if it begins anew."""
        change = json.loads(line) if line else {}
        match change.get("event"):
            case None:
                self.rows = {}
            case "added" | "changed":
                self.rows[change["key"]] = change["value"]
            case "removed":
                self.rows.pop(change["key"], None)


def differences(writers, copies, stored):
    """Numbers of compared and of differing rows: of each copy with what was written, and of `stored`, all rows in the
    store, if it is given."""
    written = {key: row for writer in writers for key, row in writer.rows.items()}
    sides = [(copy.topics, dict(copy.rows)) for copy in copies]
    if stored is not None:
        sides.append((None, stored))
    compared = differing = 0
    for topics, held in sides:
        wanted = {key: value for key, (topic, value) in written.items() if topics is None or topic in topics}
        keys = wanted.keys() | held.keys()
        compared += len(keys)
        differing += sum(wanted.get(key) != held.get(key) for key in keys)
    return compared, differing
