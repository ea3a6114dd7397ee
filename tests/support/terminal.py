"""A terminal of so many columns: what a command writes to it, and what is then to be seen there."""

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Callable
from pathlib import Path

SEQUENCE = re.compile(r"\x1b\[(?P<number>[?0-9;]*)(?P<letter>[A-Za-z])|(?P<text>[^\x1b])")


def run(
    command: list[str], columns: int, cwd: Path, environment: dict[str, str], typed: Callable[[str], bytes] | None = None
) -> tuple[int, str]:
    """The exit code of a command on a terminal, and all that it wrote there; `typed` answers to that, as often as more is written."""
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        os.chdir(cwd)
        os.execvpe(command[0], command, environment)
    written = b""
    while chunk := _read(terminal):
        written += chunk
        if typed and (keys := typed(written.decode(errors="ignore"))):
            os.write(terminal, keys)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), written.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux says that nobody writes any more
        return b""


def seen(written: str, columns: int) -> list[str]:
    """The lines that stand on the terminal then."""
    return ["".join(letter for letter, _ in line).rstrip() for line in cells(written, columns)]


def cells(written: str, columns: int) -> list[list[tuple[str, str]]]:
    """The same, letter by letter, each with the sequence that styles it; a sequence that this does not know is an error."""
    lines: list[list[tuple[str, str]]] = [[]]
    row, column, style = 0, 0, ""
    for match in SEQUENCE.finditer(written):
        number, letter, text = match["number"], match["letter"], match["text"]
        if text == "\n":
            row += 1
            lines += [[] for _ in range(row + 1 - len(lines))]
        elif text == "\r":
            column = 0
        elif text:
            if column == columns:  # it goes on in the next line
                row, column = row + 1, 0
                lines += [[] for _ in range(row + 1 - len(lines))]
            lines[row] += [(" ", "")] * (column + 1 - len(lines[row]))
            lines[row][column] = text, style
            column += 1
        elif letter == "A":
            row = max(0, row - int(number or 1))
        elif letter == "K":
            assert number == "2"
            lines[row] = []
        elif letter == "m":
            style = match[0]
        else:
            assert number == "?25", match[0]
    return lines
