"""How soon `inv status` shows what it remembers and what AWS says now, beside a task that prints a word. Medians, alternately."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORLD = ["--", "cloud=twin", "cloud.state=.cache/bench-world"]
TRIVIAL = "from invoke import task\n\n@task\ndef word(c):\n    print('word', flush=True)\n"
ROUNDS = 9


def timed(folder: Path, *words: str) -> tuple[float, float, str]:
    """Seconds to the first byte and to the end, and all that was printed."""
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "invoke", *words], cwd=folder, stdout=subprocess.PIPE) as process:
        first = process.stdout.read(1)
        soon = time.perf_counter() - started
        rest = process.stdout.read()
    if process.returncode:
        sys.exit(f"inv {words[0]} failed")
    return soon, time.perf_counter() - started, (first + rest).decode()


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        trivial = Path(place)
        (trivial / "tasks.py").write_text(TRIVIAL)
        timed(ROOT, "twin.start", *WORLD)
        try:
            timed(ROOT, "status", *WORLD)
            pairs = [(timed(ROOT, "status", *WORLD), timed(trivial, "word")) for _ in range(ROUNDS)]
        finally:
            timed(ROOT, "twin.stop", *WORLD)
    if not all("ago it was" in ours[2].splitlines()[0] for ours, _ in pairs):
        sys.exit("what came first is not what was remembered")
    soon, whole = (statistics.median(ours[part] for ours, _ in pairs) * 1000 for part in (0, 1))
    word = statistics.median(theirs[0] for _, theirs in pairs) * 1000
    ratio = statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)
    print(f"inv status: remembered after {soon:.0f} ms, AWS's answer after {whole:.0f} ms; a task that prints a word: {word:.0f} ms")
    print(f"ratio of what is remembered to that word {ratio:.2f} (medians of {ROUNDS} pairs)")


if __name__ == "__main__":
    main()
