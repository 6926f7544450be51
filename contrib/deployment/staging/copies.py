"""What is written, and what the agents hold of it."""

import itertools
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
NEVER = float("inf")
# How long a value is remembered that the store no longer holds, in seconds.
MEMORY = 300


class Writer(threading.Thread):
    """Changes rows of its own at random. As a controller does, it knows what should be stored, and repeats a write until
    it is. Its rows change only under `turn`."""

    def __init__(self, host, command, log):
        super().__init__(daemon=True)
        self.dialogue = Dialogue(host, "writer", command, log)
        # The wanted rows by key: topic and value.
        self.rows = {}
        self.keys = [f"{host.name}-{number}" for number in range(KEYS)]
        # What the store may have held of each key: values, or None, each with the time from which it no longer can.
        self.past = {key: [(None, NEVER)] for key in self.keys}
        self.written, self.turn = 0, threading.Lock()
        self.start()

    def run(self):
        for number in itertools.count():
            with self.turn:
                key = random.choice(self.keys)
                if key in self.rows and random.random() < 0.1:
                    del self.rows[key]
                else:
                    self.rows[key] = (topic(key), json.dumps({"number": number}))
                self.written += self.settle(key)
            time.sleep(1 / RATE)

    def repair(self, end):
        """Compares all rows with the store, which may have lost some in a failover; returns the number written again."""
        return sum(self.settle(key, end) for key in self.keys)

    def settle(self, key, end=float("inf")):
        """Makes the store hold what is wanted of this row; true if that took a change. Gives up at the end."""
        _, value = self.rows.get(key, (None, None))
        # Lists are replaced, not changed: another thread reads them.
        self.past[key] = [*self.past[key], (value, NEVER)]
        changed = self.change(key, end)
        if changed is not None:
            now = time.monotonic()
            *before, last = self.past[key]
            before = [(old, min(until, now)) for old, until in before if until > now - MEMORY]
            self.past[key] = [*before, last]
        return bool(changed)

    def change(self, key, end):
        """As `settle`; None if it gave up."""
        wanted = self.rows.get(key)
        line = {"table": TABLE, "key": key, "topic": topic(key), "action": "delete" if wanted is None else "set"}
        if wanted is not None:
            line["value"] = wanted[1]
        while time.monotonic() < end:
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
        return None


def topic(key):
    """Always the same for a key: of one tenant, or of all."""
    number = int(key.rpartition("-")[2])
    return "D" if number % 6 == 0 else f"tenant{number % TENANTS + 1}"


class Copy:
    """The rows that an agent has printed that it holds."""

    def __init__(self, topics):
        self.topics, self.rows = topics, {}
        # How often the agent has begun.
        self.runs = 0

    def hear(self, line):
        """A line of the agent, or None if it begins anew."""
        change = json.loads(line) if line else {}
        match change.get("event"):
            case None:
                self.rows = {}
                self.runs += 1
            case "added" | "changed":
                self.rows[change["key"]] = change["value"]
            case "removed":
                self.rows.pop(change["key"], None)


    def judge(self, writers, since):
        """Numbers of rows that may be held, and of those among them that the store has not held since that time."""
        rows = dict(self.rows)
        looked_at = wrong = 0
        for writer in writers:
            for key in writer.keys:
                if topic(key) in self.topics:
                    held = rows.get(key)
                    looked_at += 1
                    wrong += not any(value == held and until >= since for value, until in writer.past[key])
        return looked_at, wrong


def differences(writers, copies, stored=None):
    """Numbers of compared and of differing rows: of each copy with what was written, and of all rows in the store, if they
    are given."""
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
