"""What several trials at once save a search on a fleet: the same six trials, three at once and one after the other, each on an account of
its own of the twin, with a trainer that learns nothing."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/support")]

import stand_in_trainer  # noqa: E402
from fleets import with_fleet  # noqa: E402

from twin import world  # noqa: E402

SETTINGS = ("fleet=batch", "train.steps=20", "train.save_steps=5", "train.eval_steps=5")
TRIALS, STEP_SECONDS = 6, 1.0


def seconds(at_once: int, words: tuple[str, ...] = ()) -> float:
    """How long `inv sweep` takes, without the account that it needs."""
    with tempfile.TemporaryDirectory() as place:
        laptop = with_fleet(Path(place), *SETTINGS)
        try:
            stand_in_trainer.register(laptop.state, step_seconds=STEP_SECONDS)
            begun = time.monotonic()
            laptop.inv("sweep", "--fleet", str(at_once), "--trials", str(TRIALS), *words, overrides=(*SETTINGS, "lora.r=1,2,4,8,16,32"))
            return time.monotonic() - begun
        finally:
            world.stop(laptop.state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", type=int, default=3)
    several = parser.parse_args().at_once
    together, alone = seconds(several), seconds(1)
    print(f"{TRIALS} trials, {several} at once: {together:.0f} s; one at a time: {alone:.0f} s; ratio {together / alone:.2f}")


if __name__ == "__main__":
    main()
