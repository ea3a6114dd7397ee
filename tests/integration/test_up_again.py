"""`inv up` while a run goes on: it changes nothing under the run, on a box that has systemd as real ones have."""

import json

import pytest
import stand_in_trainer
from test_recovery import run_ids, state, trainers, wait_until

from twin import world

SETTINGS = ("train.steps=12", "train.save_steps=2")


@pytest.mark.slow
def test_up_while_a_run_goes_on_reloads_no_systemd_and_the_run_keeps_its_gpu(laptop):
    world.fault(laptop.state, "systemd", on=True)
    stand_in_trainer.register(laptop.state, step_seconds=0.05, hold_at=5)
    laptop.inv("up", "deploy")
    laptop.inv("train", "--detach", overrides=SETTINGS)
    (run_id,) = run_ids(laptop)
    wait_until(lambda: trainers(laptop))
    (root,) = laptop.state.glob("boxes/*/root")
    reloads, container = root / "var/log/systemd.log", root / f"var/lib/docker/containers/fine-tune-slm-{run_id}"
    assert json.loads((container / "config.json").read_text())["HostConfig"]["Devices"], "the devices of the GPU are named"
    before = reloads.read_text()
    assert before.count("Reloading") == 1, "enable, at the first boot"
    laptop.inv("up")
    assert reloads.read_text() == before

    unit = root / "etc/systemd/system/fine-tune-slm.service"
    unit.write_text("# of an older tree\n" + unit.read_text())
    laptop.inv("up")
    assert "older tree" not in unit.read_text() and reloads.read_text() == before, "its new text waits"
    assert not (container / "gpu-lost").exists()
    (volume,) = laptop.state.glob("volumes/*/data")
    (volume / "runs" / run_id / "go").touch()
    laptop.inv("train", overrides=SETTINGS)
    assert state(laptop, run_id)["phase"] == "done"
    # The unit that systemd has is that of the first boot, and the same text again: there is nothing to read anew.
    laptop.inv("up")
    assert reloads.read_text() == before
