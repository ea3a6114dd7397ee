"""A stop from outside that waits for what must be whole: SIGTERM (the box's supervisor, `docker stop`) or Ctrl-C.

While training, a stop is heard at once but takes effect behind the step that is being computed, or the checkpoint that is being
written; a measurement is broken off. Elsewhere it takes effect at once. A second SIGTERM changes nothing; a second Ctrl-C does not wait.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Within it, a stop raises KeyboardInterrupt, but never inside `later`: there it waits for the end.

    One that is not `obeyed` is passed over: of several processes the first one tells the others.
    """

    def __init__(self, obeyed: bool = True):
        self.obeyed = obeyed
        self.asked = False
        self.waits = False

    def __enter__(self) -> "Stop":
        heard = self._hear if self.obeyed else signal.SIG_IGN
        self.before = {number: signal.signal(number, heard) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_error) -> None:
        if not self.asked:  # else it is being obeyed, and goes on so
            for number, handler in self.before.items():
                signal.signal(number, handler)

    @contextmanager
    def later(self) -> Iterator[None]:
        self.waits = True
        try:
            yield
        finally:
            self.waits = False
        if self.asked:
            raise KeyboardInterrupt

    def _hear(self, _number, _frame) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.asked = True
        if not self.waits:
            raise KeyboardInterrupt
