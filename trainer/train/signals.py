"""A request to stop that waits for a step or a checkpoint: SIGTERM (the box's supervisor, `docker stop`) or Ctrl-C.

While training, it takes effect after the step that is being computed, or the checkpoint that is being written; an evaluation is
aborted. Elsewhere it takes effect at once. A second SIGTERM changes nothing; a second Ctrl-C does not wait.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """Within it, a signal to stop raises KeyboardInterrupt; inside `deferred` it waits until the block ends.

    Without `handled` signals are ignored: of several processes the main one passes the request on.
    """

    def __init__(self, handled: bool = True):
        self.handled = handled
        self.requested = False
        self.deferring = False

    def __enter__(self) -> "StopRequest":
        handler = self._handle_signal if self.handled else signal.SIG_IGN
        self.before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_error) -> None:
        if not self.requested:  # else the process is stopping, and the handlers stay
            for number, handler in self.before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self.deferring = True
        try:
            yield
        finally:
            self.deferring = False
        if self.requested:
            raise KeyboardInterrupt

    def _handle_signal(self, _number, _frame) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.requested = True
        if not self.deferring:
            raise KeyboardInterrupt
