"""What holding the trainer's container costs its start: pairs of the words that `docker run` has now and had before, on a box that is on.

inv twin.start up deploy -- cloud=twin cloud.backend=machine experiment=smoke
python tests/bench/container.py .twin
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from remote.plan.script import body, settings_block  # noqa: E402
from twin.box.machine import lifecycle, prerequisites  # noqa: E402

PAIRS = 7
PLACE = {"REGION": "us-east-1", "MOUNT_PATH": "/mnt/training"}
BEFORE = "--network host --ipc host --user 0:0 --cap-drop ALL --security-opt no-new-privileges --volume /mnt/training:/mnt/training"
START = "--entrypoint python {image} -c 'import torch, transformers, peft'"


def main(state: Path) -> None:
    (box,) = [path.parent for path in (state / "boxes").glob("*/first.json")]
    image = on(box, "docker image ls --quiet | head -n 1")
    held = on(box, settings_block(PLACE) + body("lib") + body("container") + 'hold\nprintf "%q " "${held[@]}"\n')
    start = START.format(image=image)
    pairs = [(took(box, f"{BEFORE} {start}"), took(box, f"{held} {start}")) for _ in range(PAIRS + 1)][1:]
    before, after = (statistics.median(one) for one in zip(*pairs, strict=True))
    ratio = statistics.median(after / before for before, after in pairs)
    print(f"before {before:.2f} s, now {after:.2f} s: ratio {ratio:.2f} (medians of {PAIRS} pairs)")


def on(box: Path, script: str) -> str:
    environment = {"PATH": prerequisites.SYSTEM_PATH, "HOME": "/root"}
    done = subprocess.run(
        [*lifecycle.enter_command(box), "bash", "-c", script], env=environment, encoding="utf-8", stdout=subprocess.PIPE, check=True
    )
    return done.stdout.strip()


def took(box: Path, words: str) -> float:
    begun = time.monotonic()
    on(box, f"docker run --rm {words}")
    return time.monotonic() - begun


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
