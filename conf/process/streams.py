"""The standard streams, made fit for whatever is printed: they may be closed, of an encoding that lacks a letter, or a pipe that nobody
reads any more."""

import atexit
import io
import os
import select
import signal
import sys

from conf.text import secret

UNREAD = 128 + signal.SIGPIPE  # how a shell says that a command had no reader left


def make_safe() -> None:
    """Nothing that is printed ends a command, and what a command starts in Python reads and writes UTF-8 wherever it names nothing else."""
    os.environ["PYTHONUTF8"] = "1"
    secret.keep_out_of_core_dumps()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # `2>&-`: the next file that is opened would get this number, and be written into
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else it was replaced, as a test runner does
            stream.reconfigure(errors="replace")


def end_with_the_reader() -> None:
    """Who reads `inv ... | head` has what it wanted when it goes: the command ends without a word, by the exit code UNREAD."""
    report = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace) -> None:
        if isinstance(error, BrokenPipeError) and let_go_of_pipes():
            os._exit(UNREAD)
        report(kind, error, trace)

    def flush() -> None:
        try:
            if sys.stdout:  # else it was closed from the start
                sys.stdout.flush()
        except BrokenPipeError:  # Python would complain of it, and exit by a code of its own
            let_go_of_pipes()
            os._exit(UNREAD)

    sys.excepthook = hook
    atexit.register(flush)


def let_go_of_pipes() -> bool:
    """Whether stdout or stderr has no reader left; from then on what is written there is dropped.

    Not by a default SIGPIPE, which would also end a command whose connection to AWS is cut.
    """
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    unread = [number for number, event in poll.poll(0) if event & select.POLLERR]
    for number in unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return bool(unread)
