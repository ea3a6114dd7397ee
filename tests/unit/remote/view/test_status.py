"""`inv status` asks all that it needs in one round, and believes nothing of what was said before."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from conf import load
from remote.aws import auto_stop, instance, volume
from remote.aws.session import Aws
from remote.view import status, status_cache
from twin import world

ROUND = 1.5  # seconds that every answer takes


@pytest.fixture(scope="module")
def state(aws):
    return Path(os.environ["FABRIC_SSH_CONFIG_PATH"]).parent


@pytest.fixture(scope="module")
def run():
    return load.load(["cloud=twin", "box.name=watched"], local=Path("none"))


@pytest.fixture(scope="module")
def instance_id(aws, run):
    box = instance.ensure(aws, run.box)
    auto_stop.arm(aws, box.instance_id, 12)
    volume.ensure(aws, run.box, box.instance_id, instance.wait(aws, box.instance_id).zone)
    return box.instance_id


@pytest.fixture
def runs(store, instance_id):
    for number in range(12):
        store.put(f"runs/run-{number:02d}/config.yaml", b"name: x\nkind: full\n")
        store.put(f"runs/run-{number:02d}/state.json", json.dumps({"phase": "done", "since": "2026-11-22T06:00:00Z"}).encode())
    report = {"seen": "2099-11-22T06:00:00+00:00", "run": "", "idle": 60, "idle_limit": 1200, "life_left": 3600}
    store.put(f"boxes/{instance_id}/2026.json", json.dumps(report).encode())
    return store


@pytest.mark.slow  # twelve runs are made
def test_the_second_time_it_takes_one_round_though_there_are_twelve_runs(aws, run, runs, state, instance_id):
    fresh = Aws(run.cloud)
    shown, about = status.text(fresh, run, {})
    assert {"boxes": [instance_id], "reports": [f"boxes/{instance_id}/2026.json"]}.items() <= about.items()
    assert (
        "from outside AWS stops it at" in shown
        and "idle; stops after 20 idle minutes, at the latest 2099-11-22 07:00 UTC" in shown
        and "run-11" in shown
        and "run-01" not in shown
    )
    fresh._caller = ""  # as in another process, but that its clients are made
    world.fault(state, "slow", seconds=ROUND, count=0)
    try:
        begun = time.monotonic()
        again = status.text(fresh, run, about)
        took = time.monotonic() - begun
    finally:
        world.clear_faults(state)
    assert (again[1], again[0].splitlines()[0]) == (about, shown.splitlines()[0])
    assert ROUND < took < 2 * ROUND, "a second round"


def test_what_it_was_about_last_decides_nothing(aws, run, runs, instance_id):
    wrong = {"boxes": ["i-00000000000000000"], "reports": ["boxes/i-0/none.json"], "runs": ["run-that-is-gone"]}
    shown, about = status.text(aws, run, wrong)
    ages = re.compile(r"as it said .* s ago")
    assert ages.sub("", shown) == ages.sub("", status.text(aws, run, {})[0]) and instance_id in shown
    assert "run-that-is-gone" not in shown and about["boxes"] == [instance_id]
    runs.put("runs/run-11/state.json", json.dumps({"phase": "failed", "since": "2026-11-22T06:00:00Z", "reason": "killed"}).encode())
    assert "failed (killed)" in status.text(aws, run, about)[0]


def test_a_memory_that_cannot_be_read_is_none(tmp_path, capsys):
    status_cache.write(tmp_path, "box mine: running", {"boxes": ["i-1"]})
    assert status_cache.subjects(tmp_path) == {"boxes": ["i-1"]}
    status_cache.show(tmp_path)
    assert " old:\n  box mine: running\n" in capsys.readouterr().out
    for body in ("", "box mine: running", '{"text', "[]", "{}"):
        status_cache.place(tmp_path).write_text(body)
        status_cache.show(tmp_path)
        assert status_cache.subjects(tmp_path) == {} and capsys.readouterr().out == ""
