"""The metrics of the agents over time, as Prometheus would scrape them, and whether their copies are as new as they say."""

import ctypes
import http.client
import os
import re
import threading
import time

INTERVAL = 1.0
# The longest that a row takes from the copy to the output of its agent, and from there to here, in seconds.
SLACK = 5.0
SAMPLE = re.compile(r"^tablecast_(\w+)(?:\{.*\})? ([0-9.e+-]+)$", re.MULTILINE)
CLONE_NEWNET = 0x40000000


class Trace(threading.Thread):
    """Scrapes at the agents' host: also while it is cut off. `ports` and `copies` are by agent."""

    def __init__(self, host, ports, file, begin, copies, writers):
        super().__init__(daemon=True)
        self.host, self.ports, self.begin = host, ports, begin
        self.copies, self.writers = copies, writers
        # Rows looked at in the copy of each agent, and those that were wrong in any.
        self.looked_at = dict.fromkeys(ports, 0)
        self.wrong = 0
        # The store may fall back to what it held at this time.
        self.kept = float("inf")
        self.file = open(file, "w", buffering=1)
        self.file.write("time_s,agent,staleness_s,lag_s,rows,sync_events\n")
        self.last = {agent: {} for agent in ports}
        # Summed over the runs of an agent.
        self.sync_events = dict.fromkeys(ports, 0)
        self.rounds = 0
        self.start()

    def run(self):
        # Of this thread alone.
        with open(f"/proc/{self.host.anchor.pid}/ns/net") as network:
            if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        while True:
            for agent, port in self.ports.items():
                self.scrape(agent, port)
            self.rounds += 1
            time.sleep(INTERVAL)

    def scrape(self, agent, port):
        copy, asked = self.copies[agent], time.monotonic()
        run = copy.runs
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            # It does not run at the moment.
            return
        finally:
            connection.close()
        now = {}
        for name, value in SAMPLE.findall(text):
            now[name] = now.get(name, 0) + float(value)
        if "replica_staleness_max_seconds" not in now:
            # It begins.
            return
        staleness = now["replica_staleness_max_seconds"]
        looked_at, wrong = copy.judge(self.writers, min(asked - staleness - SLACK, self.kept))
        if copy.runs == run:
            self.looked_at[agent] += looked_at
            self.wrong += wrong
        # Counters begin at 0 with each run of the agent; this one rises all the time.
        is_new = now.get("frames_received_total", 0) < self.last[agent].get("frames_received_total", 0)
        last = {} if is_new else self.last[agent]

        def rise(name):
            return now.get(name, 0) - last.get(name, 0)

        self.sync_events[agent] += int(rise("sync_events_total"))
        updates = rise("update_lag_seconds_count")
        lag = rise("update_lag_seconds_sum") / updates if updates > 0 else None
        fields = [
            f"{time.monotonic() - self.begin:.1f}",
            agent,
            f"{staleness:.3f}",
            "" if lag is None else f"{lag:.6f}",
            f"{now['replica_rows']:.0f}",
            str(self.sync_events[agent]),
        ]
        self.file.write(",".join(fields) + "\n")
        self.last[agent] = now
