"""The commands that an agent has taken: five at work, five more that wait (CommandWorkersLimit, CommandWorkerBufferLimit, pool.go)."""

import threading
from collections import deque
from collections.abc import Callable

from document import Document

WORKERS = 5
BUFFER = 5


class Pool:
    def __init__(self, carry_out: Callable[[Document], None]):
        self.carry_out = carry_out
        self.jobs: dict[str, Document] = {}  # by message
        self.waiting: deque[Document] = deque()
        self.changed = threading.Condition()
        for _ in range(WORKERS):
            threading.Thread(target=self.work, daemon=True).start()

    def full(self) -> bool:
        return len(self.waiting) >= BUFFER

    def submit(self, document: Document) -> None:
        with self.changed:
            self.jobs[document.message] = document
            self.waiting.append(document)
            self.changed.notify()

    def cancel(self, message: str) -> None:
        """One at work is killed. One that waits is skipped without a word, and stays in the folder from which the next agent begins."""
        with self.changed:
            document = self.jobs.pop(message, None)
        if document:
            document.cancel()

    def work(self) -> None:
        while True:
            with self.changed:
                while not self.waiting:
                    self.changed.wait()
                document = self.waiting.popleft()
            if not document.cancelled:
                self.carry_out(document)
            with self.changed:
                self.jobs.pop(document.message, None)
