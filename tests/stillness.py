"""Whether the machine stood still meanwhile: what fails then is tried once more, and said (tests/conftest.py, tests/faults/run)."""

import threading
import time

STILL_S = 2.0


class Stillness(threading.Thread):
    """How long this process was not given a core although it wanted one: the longest time since it was asked last."""

    def __init__(self):
        super().__init__(daemon=True)
        self.longest = 0.0
        self.asleep = time.monotonic()

    def begin(self):
        self.asleep = time.monotonic()
        self.start()

    def over(self):
        return time.monotonic() - self.asleep - 0.1

    def run(self):
        while True:
            time.sleep(0.1)
            self.longest = max(self.longest, self.over())
            self.asleep = time.monotonic()

    def take(self):
        # Whoever wakes up first: the thread itself may not have been given its turn yet.
        longest, self.longest = max(self.longest, self.over()), 0.0
        self.asleep = time.monotonic()
        return longest
