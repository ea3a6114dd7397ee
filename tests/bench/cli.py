"""What `inv --list` costs beside the same command on a tasks.py of one empty task: alternately, medians and their ratio."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRIVIAL = "from invoke import task\n\n@task\ndef nothing(c):\n    pass\n"
ROUNDS = 15


def seconds(folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "invoke", "--list"], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        trivial = Path(place)
        (trivial / "tasks.py").write_text(TRIVIAL)
        pairs = [(seconds(ROOT), seconds(trivial)) for _ in range(ROUNDS + 2)][2:]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(our / their for our, their in pairs)
    print(f"inv --list: {ours * 1000:.0f} ms; a trivial tasks.py: {theirs * 1000:.0f} ms; ratio {ratio:.2f} (medians of {ROUNDS} pairs)")


if __name__ == "__main__":
    main()
