"""`accelerate launch` itself: two processes of the real command make one run. What they compute is in test_team."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from conf.text.quoting import quoted
from trainer.files import read_json_lines
from trainer.record import record


@pytest.mark.slow
def test_accelerate_launches_two_processes_that_make_one_run(tiny, tmp_path):
    runs = tmp_path / "runs"
    launch = [str(Path(sys.executable).parent / "accelerate"), "launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "trainer"]
    words = [
        "experiment=smoke",
        f"model.id={quoted(tiny)}",
        f"runs={quoted(runs)}",
        "run_id=team",
        "quant=none",
        "train.steps=2",
        "data.eval_rows=2",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [*launch, *words, "train.report_to=[]"], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    most, deadline = 0, time.monotonic() + 900
    while process.poll() is None and not (runs / "team/events.jsonl").exists() and time.monotonic() < deadline:
        most = max(most, len(psutil.Process(process.pid).children()))
        time.sleep(0.1)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert most == 2, "the launcher did not start two trainers"
    assert output.count("run folder: ") == output.count("step 2/2 ") == 1, "each thing is told once"
    assert record.verify(runs / "team")["run_id"] == "team"
    assert [event["step"] for event in read_json_lines(runs / "team/events.jsonl") if event["event"] == "step"] == [1, 2]
    assert json.loads((runs / "team/state.json").read_text())["phase"] == "done"
