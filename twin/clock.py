"""The clock of the emulated world: it goes with the real one, and can be moved forward through everything that falls due meanwhile."""

import heapq
import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime


class Clock:
    """Seconds since 1970, as the emulated AWS and its boxes read them; alarms go off in their order, each at its own moment."""

    def __init__(self, on_move: Callable[[float], None] = lambda offset: None):
        self.offset = 0.0  # seconds ahead of the real clock
        self.on_move = on_move
        self.alarms: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()  # two alarms of one moment go off in the order they were set
        self.changed = threading.Condition(threading.RLock())

    def now(self) -> float:
        return time.time() + self.offset

    def today(self) -> datetime:
        """Now, without a zone, as moto keeps its times."""
        return datetime.fromtimestamp(self.now(), UTC).replace(tzinfo=None)

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Has `action` done at that moment, or at once when it is past."""
        with self.changed:
            heapq.heappush(self.alarms, (moment, next(self.numbers), action))
            self.changed.notify_all()

    def forward(self, seconds: float) -> None:
        """So many seconds have passed; what fell due meanwhile was done at the moment it was due."""
        with self.changed:
            target = self.now() + seconds
            while self.alarms and self.alarms[0][0] <= target:
                self.move(self.alarms[0][0])
                self.ring()
            self.move(target)
            self.changed.notify_all()

    def move(self, moment: float) -> None:
        self.offset = max(self.offset, moment - time.time())  # never back
        self.on_move(self.offset)

    def ring(self) -> None:
        _, _, action = heapq.heappop(self.alarms)
        try:
            action()
        except Exception:  # one alarm that fails must not silence the others; twin.log shows it
            traceback.print_exc(file=sys.stderr)

    def start(self) -> None:
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        with self.changed:
            while True:
                wait = self.alarms[0][0] - self.now() if self.alarms else None
                if wait is not None and wait <= 0:
                    self.ring()
                else:
                    self.changed.wait(wait)
