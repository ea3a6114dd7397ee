"""Killed at ten random moments, five in each number format, a run goes on and ends with the bytes of the run that was left alone."""

import random
import time

import pytest

from tests.unit.trainer import forked
from tests.unit.trainer.formats import FORMATS, computed_in
from trainer.files import digest

WORDS = ["quant=none", "train.steps=6", "train.batch_size=2", "train.save_steps=1", "train.eval_steps=3", "data.eval_rows=2"]
WORDS += ["lora.dropout=0.1", "train.neftune_noise_alpha=5", "train.report_to=[]"]  # chance goes on, too


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("volume") / "runs"


@pytest.fixture(scope="module", params=FORMATS)
def unbroken(request, settings_for, runs):
    """The adapter's digest after a run that was left alone, and the seconds it took."""
    settings = settings_for(runs, *WORDS)
    with computed_in(request.param):
        folder = forked.make(settings, f"unbroken-{request.param}")
        seconds = forked.whole(settings, folder)
        yield digest(folder / forked.ADAPTER), seconds


@pytest.mark.parametrize("number", range(5))
@pytest.mark.slow
def test_a_run_killed_at_a_random_moment_ends_with_the_same_bytes(number, settings_for, runs, unbroken):
    expected, seconds = unbroken
    settings = settings_for(runs, *WORDS)
    folder = forked.make(settings, f"killed-{number}-{expected[:8]}")
    moment = random.Random(f"moment {number} {expected}").uniform(0, seconds)
    child = forked.start(settings, folder)
    time.sleep(moment)
    child.kill()
    child.join()
    forked.whole(settings, folder)
    assert digest(folder / forked.ADAPTER) == expected, f"killed after {moment:.3f} s"
