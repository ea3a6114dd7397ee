"""The terminal of a person, lent to a program: its keys and signals are the program's alone, and afterwards it is as it was."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KEYS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)  # Ctrl-C, Ctrl-\ and Ctrl-Z are meant for the far end


def is_there() -> bool:
    """Whether a person types and reads here."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def lend(words: list[str], environment: dict[str, str]) -> int:
    """The exit code of a program that has the whole terminal."""
    with _lent():
        return subprocess.call(words, env=environment)


def lend_filtered(words: list[str], environment: dict[str, str], show: Callable[[bytes], bytes]) -> int:
    """The same, where only what `show` makes of its output is seen; the program writes to a terminal of the same size."""
    ours, its = os.openpty()
    tty.setraw(its)
    with _lent(), _resized(ours):
        process = subprocess.Popen(words, env=environment, stdout=its)
        os.close(its)
        while written := _read(ours):
            sys.stdout.buffer.write(show(written))
            sys.stdout.buffer.flush()
        os.close(ours)
        return process.wait()


@contextmanager
def _lent() -> Iterator[None]:
    settings = termios.tcgetattr(sys.stdin)
    handlers = {number: signal.signal(number, lambda *_: None) for number in KEYS}  # ignored ones would be so for the program, too
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)


@contextmanager
def _resized(terminal: int) -> Iterator[None]:
    """A terminal that has the size of ours, also when that changes."""

    def resize(*_) -> None:
        with contextlib.suppress(OSError):  # the program has ended, and its terminal with it
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, fcntl.ioctl(sys.stdout, termios.TIOCGWINSZ, bytes(8)))

    resize()
    handler = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, handler)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux says so that nobody writes any more
        return b""
