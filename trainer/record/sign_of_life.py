"""A run's sign of life while it writes nothing: a model of many gigabytes is fetched and loaded for minutes."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

EVERY = 10.0  # seconds
LEAST = 0.05  # seconds of CPU time in ten: one that only waits takes 0.00004, with the GPUs looked at 0.0013 (measured with a stand-in)
LONGEST = 3600.0  # seconds: what computes for longer without a result may wait for a card that hangs, and is to be found


@contextmanager
def while_computing(heartbeat: Callable[[], None]) -> Iterator[None]:
    """Call `heartbeat` every ten seconds in which this process has computed, for an hour at most. One that hangs stays silent, and is
    found by that. What `heartbeat` raises is raised here, behind the work."""
    over = threading.Event()

    def watch() -> None:
        used, end = time.process_time(), time.monotonic() + LONGEST
        while not over.wait(EVERY) and time.monotonic() < end:
            before, used = used, time.process_time()
            if used - before >= LEAST:
                heartbeat()

    with ThreadPoolExecutor(1, thread_name_prefix="sign-of-life") as pool:
        watcher = pool.submit(watch)
        try:
            yield
        finally:
            over.set()
        watcher.result()
