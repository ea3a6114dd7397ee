"""What a person sees while verbs work: the one place that writes to the terminal. Steps report what they do, and print nothing.

On a terminal a verb has one live line while it works. Elsewhere, as in the log of a CI, the same line is written when it changes, now and
then. Results go to stdout, all else to stderr. rich is imported late: `inv --list` and much of `inv status` need none of it.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Protocol

from conf import commands
from conf.text import secret
from conf.text.visible import console, visible

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.table import Table

PLAIN_EVERY = 15.0  # seconds between two lines about the same verb where nobody watches a terminal
LABEL = 11  # columns of a verb's name, and of the words before each line of a report
BAR_FROM = 80  # columns of a terminal that has room for a bar
LEAST_BAR, MOST_BAR = 8, 22  # columns of a bar and of the space beside it; it gives way to words


@dataclass
class Status:
    """Where a verb stands."""

    verb: str
    text: str = ""
    done: int = 0
    of: int = 0  # 0: nobody knows how much there is to do
    below: Sequence[str] = ()  # what a terminal has room for besides
    started: float = field(default_factory=time.monotonic)

    @property
    def clock(self) -> str:
        return duration(time.monotonic() - self.started)


class Drawn(Protocol):
    """A way to show a status while it changes."""

    def stop(self) -> None: ...

    def write(self, text: str) -> None: ...


class Screen:
    def __init__(self) -> None:
        self.echo = False  # whether details are shown
        self._said: set[str] | None = None  # within a command
        self._next = ""
        self._status: Status | None = None
        self._drawn: Drawn | None = None

    @contextmanager
    def opened(self, echo: bool) -> Iterator[None]:
        """For all verbs of one command. What to type next is named once, after the last of them."""
        self.echo, self._said = echo, set()
        try:
            yield
        finally:
            self.echo, self._said = False, None
        if self._next:
            print(f"{'next':<{LABEL}}{self._next}", flush=True)

    def begin(self) -> None:
        """Another verb begins: what was to be typed next is being done, or is no longer next."""
        self._next = ""

    @contextmanager
    def verb(self, name: str, text: str = "") -> Iterator[None]:
        """While a verb works, its status is shown; at first `text`."""
        self._status = Status(name, text)
        self._show()
        try:
            yield
        finally:
            self._hide()
            self._status = None

    def status(self, text: str, done: int = 0, of: int = 0, below: Sequence[str] = ()) -> None:
        """What is being done now; `done` of `of`, where that is known; on a terminal with further lines `below`."""
        if self._status:
            self._status.text, self._status.done, self._status.of, self._status.below = shown(text), done, of, [*map(shown, below)]

    def step(self, text: str) -> None:
        """The same, for something that is worth a line among the details."""
        self.status(text.strip())
        self.detail(text)

    def detail(self, text: str) -> None:
        """A line for whoever asks for all of them, with `--echo`."""
        if self.echo:
            self._write(text)

    def note(self, text: str) -> None:
        """What has to be known: always shown, and once in a command."""
        if self._said is not None and text in self._said:
            return
        if self._said is not None:
            self._said.add(text)
        self._write(text)

    def relay(self, text: str) -> None:
        """A line of a program that works for the verb: shown as often as it comes."""
        self._write(text)

    def result(self, text: str, then: str = "") -> None:
        """How the verb has ended; `then` is what to type next, if no other verb follows."""
        self._next = shown(then)
        self._hide()
        verb, clock = (self._status.verb, self._status.clock) if self._status else ("", "")
        out = stdout()
        out.print(f"{verb:<{LABEL}}", style="bold green", end="", soft_wrap=True)
        out.print(f"{shown(text)}  ", end="", soft_wrap=True)
        out.print(clock, style="dim", soft_wrap=True)
        sys.stdout.flush()

    def print(self, text: "str | Table") -> None:
        """Something that was asked for, on stdout."""
        with self.paused():
            if isinstance(text, str):  # without rich, which the trainer's image does not have
                print(shown(text), flush=True)
            else:
                stdout().print(text)
                sys.stdout.flush()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The terminal is somebody else's: a question's, or a program's that writes to it."""
        shown = self._drawn is not None
        self._hide()
        try:
            yield
        finally:
            if shown:
                self._show()

    def _show(self) -> None:
        if self._status:
            self._drawn = _Live(self._status) if on_terminal(sys.stderr) else _Plain(self._status)

    def _hide(self) -> None:
        if self._drawn:
            self._drawn.stop()
        self._drawn = None

    def _write(self, text: str) -> None:
        if self._drawn:
            self._drawn.write(shown(text))
        else:
            print(shown(text), file=sys.stderr, flush=True)


class _Live:
    """A line of a terminal that is drawn anew several times a second, and what stands below it."""

    def __init__(self, status: Status):
        from rich.live import Live
        from rich.spinner import Spinner

        self.status, self.console = status, _console(sys.stderr)
        self.spinner = Spinner("dots" if self.console.encoding.startswith("utf") else "line")
        # What other libraries write to stderr comes above the line; stdout is for results, which a person may have sent elsewhere.
        self.live = Live(get_renderable=self._lines, console=self.console, refresh_per_second=8, transient=True, redirect_stdout=False)
        self.live.start()

    def stop(self) -> None:
        self.live.stop()

    def write(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def _lines(self) -> "Group":
        from rich.console import Group
        from rich.text import Text

        below = self.status.below[: max(0, self.console.height - 2)]  # rich cuts what is higher than the terminal
        indent = " " * (LABEL + 2)
        return Group(self._line(), *(Text(f"{indent}{line}", style="dim", no_wrap=True, overflow="crop") for line in below))

    def _line(self) -> "Table":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        status, line = self.status, Table.grid(expand=True)
        line.add_column(width=LABEL, no_wrap=True)
        line.add_column(width=2)
        line.add_column(ratio=1, no_wrap=True, overflow="crop")
        cells: list[RenderableType] = [status.verb, self.spinner, Text(status.text)]
        left = self.console.width - LABEL - len(status.text) - len(status.clock) - 7  # with what lies between
        if status.of and self.console.width >= BAR_FROM and not 0 <= left < LEAST_BAR:  # longer words are cut in any case
            bar = max(LEAST_BAR, min(left, MOST_BAR))
            line.add_column(width=bar)
            cells.append(ProgressBar(status.of, status.done, width=bar - 2))
        line.add_column(width=len(status.clock) + 1, justify="right", style="dim")
        line.add_row(*cells, status.clock)
        return line


class _Plain:
    """A line now and then, when there is something new."""

    def __init__(self, status: Status):
        self.status, self.ended = status, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.ended.set()
        self.thread.join()

    def write(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _run(self) -> None:
        last = ""
        while not self.ended.wait(PLAIN_EVERY):
            if self.status.text != last:
                last = self.status.text
                self.write(f"{self.status.verb:<{LABEL}}{last}")


def shown(text: str) -> str:
    """The text as a person may see it: control characters made visible, secrets hidden, and each command ready to be run."""
    return visible(secret.hide(commands.runnable(text)))


def on_terminal(stream: IO[str]) -> bool:
    """Whether a person watches who can be drawn for."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def coloured(stream: IO[str]) -> bool:
    """Whether colours are wanted there: on a terminal, unless NO_COLOR (https://no-color.org) says otherwise."""
    return on_terminal(stream) and not os.environ.get("NO_COLOR")


def stdout() -> "Console":
    """Where results are printed: as wide as the terminal, else wide enough for every table."""
    return _console(sys.stdout, 140)


def _console(stream: IO[str], width: int | None = None) -> "Console":
    # Said outright, as rich would also go by FORCE_COLOR and the like: a log has no use for control characters.
    terminal = on_terminal(stream)
    colours = "auto" if coloured(stream) else None
    return console(file=stream, force_terminal=terminal, color_system=colours, width=None if terminal else width)


def duration(seconds: float) -> str:
    """Such as `4 s`, `2 min 05 s`, `1 h 02 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


screen = Screen()
