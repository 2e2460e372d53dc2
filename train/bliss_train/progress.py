"""What the program says while it works, on standard error."""

import sys
import time

PROGRAM = "bliss-train"
EVERY_SECONDS = 5


def say(words):
    print(f"{PROGRAM}: {words}", file=sys.stderr, flush=True)


class Progress:
    """How far a long step is: a line every five seconds, and one at the end."""

    def __init__(self, name, what, total):
        self.name, self.what, self.total = name, what, total
        self.begun = self.told = time.monotonic()

    def at(self, done):
        now = time.monotonic()
        if done >= self.total or now - self.told >= EVERY_SECONDS:
            self.told = now
            say(f"{self.name}: {done} of {self.total} {self.what}, {now - self.begun:.1f} s")
