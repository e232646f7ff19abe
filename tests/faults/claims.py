"""What the views claim of themselves while a fault is on: taken down many times a second, and judged afterwards.

`complete=1` in health says that every record up to `complete_lag` before the clock is counted. That is a promise to whoever
looks during a recovery, so it is held against the oracle's records like any number."""

import bisect
import threading
import time

import compare_truth
import recounted

EVERY_S = 0.03


class Claims:
    """with Claims(stage) as claims: ...; then claims.check(): the number of pictures that were taken."""

    def __init__(self, stage, complete_lag_ms=5000, window="5m"):
        self.stage, self.window = stage, window
        # Read *through* means an end that was asked for less than two seconds ago (design), of a broker that was asked then.
        self.allowed_ms = complete_lag_ms + 2000
        self.pictures = []  # (as_of_ms, complete, complete of the window, {partition: next offset})
        self.absent = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def _sample(self):
        base = "nps:{%s}:health" % self.stage.world.namespace
        connection = None
        while not self.stop.is_set():
            try:
                connection = connection or compare_truth.Redis(self.stage.redis.url, timeout=2)
                reply = connection.call("EVAL", recounted.READ, 2, base, base + ":" + self.window)
                health, window = (dict(zip(flat[::2], flat[1::2])) for flat in reply)
                if not health:
                    self.absent += 1
                else:
                    self.pictures.append((int(health["as_of_ms"]), health["complete"], window.get("complete"),
                                          self.stage.positions(health)))
            except (OSError, compare_truth.RedisError):
                if connection:
                    connection.close()
                connection = None
                self.absent += 1
            time.sleep(EVERY_S)

    def check(self):
        """The oracle must have read beyond every position that was taken down."""
        times = {}  # partition -> [(offset, timestamp)] in the order of offsets
        for timestamp, partition, offset, _ in self.stage.reader.raw:
            times.setdefault(partition, []).append((offset, timestamp))
        whole = 0
        for clock, complete, complete_window, positions in self.pictures:
            if "1" not in (complete, complete_window):
                continue
            whole += 1
            for partition, next_ in positions.items():
                records = times.get(partition, [])
                unread = records[bisect.bisect_left(records, (next_, 0)):][:1]
                assert not unread or unread[0][1] >= clock - self.allowed_ms, (
                    "complete=1 at %d, but partition %d stood at %d and its record %d is %.1f s older" % (
                        clock, partition, next_, unread[0][0], (clock - unread[0][1]) / 1000))
        return whole
