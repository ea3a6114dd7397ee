"""Four short runs on four instances of a fleet, beside the same four on one box: how long one waits for them, and where the time goes.

All of it is the twin's, whose instances come within seconds, and whose trainer learns nothing: a step takes as long as it is told, so that
what differs is all around the steps. AWS's instances take minutes to come, a box's and a fleet's alike; that is not in here.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]

import stand_in_trainer  # noqa: E402

from twin import world  # noqa: E402

STATE = ROOT / ".cache/bench-fleet"
WORLD = ["cloud=twin", f"cloud.state={STATE.relative_to(ROOT)}", "runs=.cache/bench-fleet-runs", "experiment=smoke"]
FLEET = ["fleet=batch", "fleet.max_vcpus=32"]
RUNS = 4


def inv(*verbs: str, settings: list[str]) -> float:
    """Seconds that the command takes."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "invoke", *verbs, "--", *WORLD, *settings], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        sys.exit(f"inv {verbs[0]} failed\n{done.stdout}{done.stderr}")
    return time.monotonic() - begun


def run_ids(before: set[str] = frozenset()) -> set[str]:
    pages = world.client(STATE, "s3").get_paginator("list_objects_v2").paginate(Bucket="fine-tune-slm", Prefix="fine-tune-slm/runs/")
    return {item["Key"].split("/")[2] for page in pages for item in page.get("Contents", [])} - before


def moments(run_id: str) -> list[float]:
    """When each of its steps was done."""
    body = world.client(STATE, "s3").get_object(Bucket="fine-tune-slm", Key=f"fine-tune-slm/runs/{run_id}/events.jsonl")["Body"].read()
    return [datetime.fromisoformat(one["time"]).timestamp() for one in map(json.loads, body.splitlines()) if one["event"] == "step"]


def paid() -> float:
    """Seconds of all instances so far."""
    rows = [row for row in world.costs(STATE)["rows"] if row["kind"] == "instance"]
    return sum((row["until"] or time.time()) - row["since"] for row in rows)


def on_the_fleet(settings: list[str]) -> str:
    began, before = time.time(), paid()
    took = inv(
        "sweep", "--fleet", str(RUNS), "--name", "fleet", settings=[*FLEET, *settings, "seed=" + ",".join(map(str, range(1, RUNS + 1)))]
    )
    ended, batch = time.time(), world.client(STATE, "batch")
    (ids,) = [batch.list_jobs(jobQueue="fine-tune-slm-spot", jobStatus="SUCCEEDED")["jobSummaryList"]]
    jobs = batch.describe_jobs(jobs=[one["jobId"] for one in ids])["jobs"]
    steps = {run_id.replace(".", "-"): moments(run_id) for run_id in run_ids()}

    def typical(part) -> float:
        return statistics.median(part(job, steps[job["jobName"]]) for job in jobs)

    parts = {
        "until the last run was handed over": max(job["createdAt"] for job in jobs) / 1000 - began,
        "of each run: an instance, and its image": typical(lambda job, _: (job["startedAt"] - job["createdAt"]) / 1000),
        "the carrier's fetching and the trainer's start": typical(lambda job, done: done[0] - job["startedAt"] / 1000),
        "its steps": typical(lambda _, done: done[-1] - done[0]),
        "scores, delivery and the container's end": typical(lambda job, done: job["stoppedAt"] / 1000 - done[-1]),
        "from the last container's end to the table": ended - max(job["stoppedAt"] for job in jobs) / 1000,
    }
    inv("down", "--fleet", settings=FLEET)
    shown = ", ".join(f"{words} {seconds:.0f} s" for words, seconds in parts.items())
    return f"{RUNS} instances: {took:.0f} s; {shown}; {paid() - before:.0f} s of instances are paid for"


def on_one_box(settings: list[str]) -> str:
    before, known = paid(), run_ids()
    ready = inv("up", "deploy", settings=settings)
    seeds = range(RUNS + 1, 2 * RUNS + 1)  # those before have been trained, and are not trained again
    took = inv("sweep", "--name", "box", settings=[*settings, "seed=" + ",".join(map(str, seeds))])
    down = inv("down", settings=settings)
    steps = [done for run_id in sorted(run_ids(known)) if (done := moments(run_id))]
    inside = sum(done[-1] - done[0] for done in steps)
    parts = f"`up deploy` {ready:.0f} s, steps {inside:.0f} s, between and around them {took - inside:.0f} s, `down` {down:.0f} s"
    return f"one box: {ready + took:.0f} s until the table; {parts}; {paid() - before:.0f} s of the box are paid for"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a step")
    asked = parser.parse_args()
    settings = [f"train.steps={asked.steps}", f"train.save_steps={max(1, asked.steps // 4)}"]
    inv("twin.start", settings=settings)
    try:
        token = STATE / "token-of-the-bench"
        token.write_text(world.environment(STATE)["HF_TOKEN"] or "", encoding="utf-8")
        os.environ["PYTHONPATH"] = str(ROOT)
        inv("init", "--yes", "--token", str(token), settings=[*FLEET, *settings])
        stand_in_trainer.register(STATE, step_seconds=asked.seconds)
        print(f"{RUNS} runs of {asked.steps} steps of {asked.seconds:g} s on the twin")
        print(on_the_fleet(settings), flush=True)
        print(on_one_box(settings), flush=True)
    finally:
        world.stop(STATE)


if __name__ == "__main__":
    main()
