"""The standard streams, made fit for whatever is printed: they may be closed, or of an encoding that lacks a letter."""

import io
import os
import sys

from conf.text import secret


def settle() -> None:
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
        if isinstance(stream, io.TextIOWrapper):  # else somebody has put his own there
            stream.reconfigure(errors="replace")
