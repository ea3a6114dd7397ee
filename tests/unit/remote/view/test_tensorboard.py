"""TensorBoard shows what the events in S3 say, while they grow, and nothing that a later attempt has undone."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("tensorboard", reason="TensorBoard is not installed")

from remote.view import tensorboard

ROOT = Path(__file__).parents[4]
ASKS = 'exec 3<>/dev/tcp/127.0.0.1/$0 && printf "GET /data/runs HTTP/1.0\\r\\nHost: 127.0.0.1\\r\\n\\r\\n" >&3 && cat <&3'
RUN = "20260101-000000-x-0000"


def line(kind: str, step: int, **values) -> str:
    return json.dumps({"time": "2026-01-01T00:00:00Z", "event": kind, "step": step, **values}) + "\n"


def curves(folder) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, round(event.value, 4)) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_every_number_becomes_a_curve_and_a_torn_line_waits_for_its_end(store, tmp_path):
    events = line("step", 1, steps=4, loss=2.0, lr=0.1) + line("eval", 1, loss=1.5, fields={"stage": 0.25, "gene": None})
    later = line("step", 2, steps=4, loss=1.0, lr=0.05)
    store.put(
        f"runs/{RUN}/events.jsonl", (json.dumps({"time": "x", "event": "phase", "phase": "running"}) + "\n" + events + later[:9]).encode()
    )
    shown = tensorboard.Curves(tmp_path / "a", store, RUN)
    shown.refresh()
    assert curves(tmp_path / "a") == {
        "step/loss": [(1, 2.0)],
        "step/lr": [(1, 0.1)],
        "eval/loss": [(1, 1.5)],
        "eval/fields/stage": [(1, 0.25)],
    }
    store.put(
        f"runs/{RUN}/events.jsonl", (json.dumps({"time": "x", "event": "phase", "phase": "running"}) + "\n" + events + later).encode()
    )
    shown.refresh()
    shown.refresh()
    shown.close()
    assert curves(tmp_path / "a")["step/loss"] == [(1, 2.0), (2, 1.0)]


def test_steps_that_were_done_again_are_shown_once(store, tmp_path):
    body = "".join(line("step", step, loss=float(step)) for step in (1, 2, 3, 4)) + "".join(
        line("step", step, loss=9.0) for step in (3, 4, 5)
    )
    store.put(f"runs/{RUN}/events.jsonl", body.encode())
    shown = tensorboard.Curves(tmp_path / "a", store, RUN)
    shown.refresh()
    shown.close()
    assert curves(tmp_path / "a")["step/loss"] == [(1, 1.0), (2, 2.0), (3, 9.0), (4, 9.0), (5, 9.0)]


def test_it_listens_on_this_machine_only_and_ends_with_the_command(store, aws):
    store.put(f"runs/{RUN}/events.jsonl", line("step", 1, loss=2.0).encode())
    store.put(f"runs/{RUN}/config.yaml", b"name: x\nkind: full\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from conf import load; from remote.aws import session; from remote.view import tensorboard;"
    code += f"run = load.load(['cloud=twin']); tensorboard.show(session.Aws(run.cloud), run, None, {port})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        deadline, runs = time.monotonic() + 900, None
        while runs is None and time.monotonic() < deadline and process.poll() is None:
            try:
                runs = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=2)) or None
            except OSError:
                time.sleep(0.3)
        assert runs == [RUN]
        named = urllib.request.Request(f"http://127.0.0.1:{port}/data/runs", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(named, timeout=600)
        if os.geteuid() == 0:  # only root can be somebody else
            nobody = {"user": 65_534, "group": 65_534, "extra_groups": []}
            done = subprocess.run(["/bin/bash", "-c", ASKS, str(port)], capture_output=True, text=True, cwd="/", timeout=600, **nobody)
            assert RUN not in done.stdout
            done = subprocess.run(["/bin/bash", "-c", ASKS, str(port)], capture_output=True, text=True, cwd="/", timeout=600)
            assert RUN in done.stdout, "asked in the same way, but by the owner"
        assert listeners(port) == {"0100007F"}, "127.0.0.1, in the kernel's own notation"
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=900)
    assert not listeners(port)


def listeners(port: int) -> set[str]:
    """The addresses, as the kernel writes them, on which something listens at this port."""
    addresses = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, state = re.split(r"\s+", row.strip())[1:4:2]
            if state == "0A" and int(address.split(":")[1], 16) == port:
                addresses.add(address.split(":")[0])
    return addresses
