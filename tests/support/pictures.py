"""The pictures of README, made of a real run: python tests/support/pictures.py

`make run` is recorded on a terminal of 100 columns: what stands there in the end, and what stood there while the run was in its last step;
and the page of the run that it has made is opened in a browser.
"""

import io
import itertools
import os
import re
import shutil
import sys
from pathlib import Path

import terminal
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs/pictures"
COLUMNS = 100
STEP = "running: step "  # remote/runs/progress.py
CLEARED = re.compile("\r\033\\[(2K|1A)")  # rich/live_render.py: position_cursor, restore_cursor
WIDE, HIGH = 1000, 1150  # pixels of the report's page that are shown


def main() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    code, written = terminal.run(["make", "--no-print-directory", "run"], COLUMNS, ROOT, environment)
    if code:
        sys.exit(written)
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "make-run.svg").write_text(svg(written, "make run"), encoding="utf-8")
    (PICTURES / "inv-train.svg").write_text(svg(while_training(written), "make run, while it trains"), encoding="utf-8")
    page = ROOT / re.findall(r"^report +(\S+)", "\n".join(terminal.seen(written, COLUMNS)), re.MULTILINE)[-1]
    photograph(page, PICTURES / "report.png")


def while_training(written: str) -> str:
    """All that was written until the live view stood there with the last step that it showed: the next view begins by clearing it."""
    last = written.rfind(STEP)
    if last < 0:
        sys.exit("no step of a run was seen on the terminal")
    drawn_anew = CLEARED.search(written, last)
    return written[: drawn_anew.start() if drawn_anew else None]


def svg(written: str, title: str) -> str:
    """What stands on the terminal in the end."""
    lines = []
    for line in terminal.cells(written, COLUMNS):
        parts = itertools.groupby(line, key=lambda cell: cell[1])
        lines.append("".join(f"\033[0m{style}{''.join(letter for letter, _ in cells)}" for style, cells in parts))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    shown = Text.from_ansi("\n".join(["$ make run", *lines]))
    shown.rstrip()
    console.print(shown, soft_wrap=True)
    drawn = console.export_svg(title=title, unique_id=re.sub("[^a-z]+", "-", title))
    return re.sub(r" *@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL)  # nothing is fetched from elsewhere


def photograph(page: Path, picture: Path) -> None:
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page(viewport={"width": WIDE, "height": HIGH})
        opened.goto(page.as_uri())
        opened.screenshot(path=picture)


if __name__ == "__main__":
    main()
