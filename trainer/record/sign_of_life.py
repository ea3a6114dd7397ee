"""A run's sign of life while it writes nothing: a model of many gigabytes is fetched and loaded for minutes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 10.0  # seconds
LEAST = 0.05  # seconds of CPU time in ten: a process that only waits takes less, and one that fetches or reads far more


@contextmanager
def while_computing(heartbeat: Callable[[], None]) -> Iterator[None]:
    """Call `heartbeat` every ten seconds in which this process has computed; one that hangs stays silent, and is found by that."""
    over = threading.Event()

    def watch() -> None:
        used = time.process_time()
        while not over.wait(EVERY):
            before, used = used, time.process_time()
            if used - before >= LEAST:
                heartbeat()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
