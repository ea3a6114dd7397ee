"""A laptop whose box is a whole Linux system, and what tests ask of it."""

import hashlib
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import Laptop

from remote.aws.batch import CACHE
from twin.box.machine import lifecycle, prerequisites

GRADE = "cloud.backend=machine"
MOUNT = "/mnt/training"


def lacking(reason: str) -> None:
    """Skips the test and says why; in CI, where all is installed, it fails."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def needed(*programs: str) -> None:
    """A test that needs root and these programs is skipped where they are missing, with what helps."""
    if reason := prerequisites.missing(*programs):
        lacking(reason)


def may_resize() -> bool:
    """Whether a mounted file system can grow: that needs CAP_SYS_RESOURCE, which root in a container may not have."""
    status = Path("/proc/self/status")
    capabilities = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("CapEff:")] if status.exists() else []
    return bool(capabilities) and bool(int(capabilities[0], 16) >> 24 & 1)


def written(path: Path) -> str:
    """Of what was ever written to a disk, the digest: a sparse file's holes are passed over."""
    digest, place = hashlib.sha256(), 0
    with path.open("rb") as opened:
        while True:
            try:
                place = os.lseek(opened.fileno(), place, os.SEEK_DATA)
            except OSError:
                return digest.hexdigest()
            end = os.lseek(opened.fileno(), place, os.SEEK_HOLE)
            opened.seek(place)
            digest.update(f"{place}".encode() + opened.read(end - place))
            place = end


class Machine(Laptop):
    def inv(self, *verbs: str, overrides: tuple[str, ...] = (), **options):
        return super().inv(*verbs, overrides=(GRADE, *overrides), timeout=3600, **options)

    @property
    def instance(self) -> str:
        """The box that is, or was last."""
        instances = [one for group in self.client("ec2").describe_instances()["Reservations"] for one in group["Instances"]]
        return max(instances, key=lambda one: (one["State"]["Name"] != "terminated", one["LaunchTime"]))["InstanceId"]

    @property
    def box(self) -> Path:
        return self.state / "boxes" / self.instance

    def run(self, script: str, ok: bool = True, instance: str = "") -> str:
        """What a command on the box prints, or on that one."""
        environment, box = {"PATH": prerequisites.SYSTEM_PATH, "HOME": "/root"}, self.state / "boxes" / instance if instance else self.box
        done = subprocess.run([*lifecycle.enter_command(box), "bash", "-c", script], env=environment, text=True, capture_output=True)
        assert done.returncode == 0 or not ok, done.stdout + done.stderr
        return done.stdout.strip()

    def first_process(self) -> str:
        """What the twin wrote down of the box's first process; nothing while the box is off."""
        record = self.box / "first.json"
        try:
            return record.read_text()
        except FileNotFoundError:
            return ""

    def instance_state(self) -> str:
        return self.client("ec2").describe_instances(InstanceIds=[self.instance])["Reservations"][0]["Instances"][0]["State"]["Name"]

    def until(self, promise: Callable, seconds: float = 900):
        """The first true value of `promise`."""
        deadline = time.monotonic() + seconds
        while not (result := promise()):
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.2)
        return result

    # Runs

    def run_ids(self) -> list[str]:
        return sorted({key.split("/")[2] for key in self.objects() if "/runs/" in key})

    def of(self, run_id: str, name: str) -> bytes:
        return self.object(f"fine-tune-slm/runs/{run_id}/{name}")

    def phase(self, run_id: str) -> dict:
        return json.loads(self.of(run_id, "state.json"))

    def begin(self, *overrides: str) -> str:
        """The id of a run that goes on on the box, and has a checkpoint."""
        before = set(self.run_ids())
        self.inv("train", "--detach", overrides=overrides)
        (run_id,) = set(self.run_ids()) - before
        self.until(lambda: self.run(f"ls {MOUNT}/runs/{run_id}/checkpoints/*/COMPLETE", ok=False))
        return run_id

    @contextmanager
    def counted(self) -> Iterator[Callable[[], int]]:
        """Most trainers that were ever seen at once meanwhile."""
        most, over = [0], threading.Event()

        def count():
            while not over.wait(0.2):
                most[0] = max(most[0], len(trainers()))

        counter = threading.Thread(target=count, daemon=True)
        counter.start()
        try:
            yield lambda: most[0]
        finally:
            over.set()
            counter.join()

    def ended_well(self, run_id: str, steps: int, resumed: int) -> None:
        """Sealed, each file as its manifest says, each step there, the log whole, and the published adapter the run's own."""
        assert self.phase(run_id)["phase"] == "done"
        files = json.loads(self.of(run_id, "manifest.json"))["files"]
        for name, stated in files.items():
            body = self.of(run_id, name)
            assert hashlib.sha256(body[: stated["size"]]).hexdigest() == stated["sha256"], name
        log = self.of(run_id, "log.txt").decode()
        assert self.chunks(run_id).decode() == log
        assert log.count("going on after step") == resumed
        self.each_step_once(run_id, steps, [int(step) for step in re.findall(r"going on after step (\d+)", log)])
        self.published(run_id, files["adapter/adapter_model.safetensors"]["sha256"])

    def chunks(self, run_id: str) -> bytes:
        """The log as it was shipped while the run went on: each chunk begins where the one before it ended."""
        prefix, joined = f"fine-tune-slm/runs/{run_id}/log/", b""
        for key in sorted(key for key in self.objects() if key.startswith(prefix)):
            assert int(key.removeprefix(prefix)) == len(joined)
            joined += self.object(key)
        return joined

    def each_step_once(self, run_id: str, steps: int, resumed: list[int]) -> None:
        """From 1 to the last without a gap; back only to where the run went on."""
        events = [json.loads(line) for line in self.of(run_id, "events.jsonl").splitlines()]
        last, back = 0, list(resumed)
        for step in (event["step"] for event in events if event["event"] == "step"):
            while step != last + 1 and back:
                last = back.pop(0)
            assert step == last + 1, f"step {step} after {last}"
            last = step
        assert last == steps

    def published(self, run_id: str, digest: str) -> None:
        """The Hub gives back the adapter that was trained."""
        from huggingface_hub import hf_hub_download

        record = json.loads(self.of(run_id, "published.json"))
        where = {"endpoint": self.environment["HF_ENDPOINT"], "token": self.environment["HF_TOKEN"], "local_dir": self.folder / run_id}
        downloaded = hf_hub_download(record["repository"], "adapter_model.safetensors", revision=record["tag"], **where)
        assert hashlib.sha256(Path(downloaded).read_bytes()).hexdigest() == digest


def trainers() -> list[psutil.Process]:
    """Every trainer in any box on this machine, of a fleet's too; what it starts itself is none."""
    by_pid = {}
    for process in psutil.process_iter(["cmdline", "ppid"]):
        words = process.info["cmdline"] or []
        if "trainer" in words and "run" in words and any(word.startswith((f"{MOUNT}/runs/", f"{CACHE}/runs/")) for word in words):
            by_pid[process.pid] = process
    return [process for process in by_pid.values() if process.info["ppid"] not in by_pid]
