"""Two people of one stack, each held to a laptop's policy: what one puts into the bucket is to the other data, and somebody else's."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import stand_in_trainer
from test_recovery import run_ids, state

from conf import load
from remote.account import permissions
from twin import world

pytestmark = pytest.mark.slow  # half a minute: a run on a box

BUCKET, PREFIX = "fine-tune-slm", "fine-tune-slm/runs"
TRUST = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "sso.amazonaws.com"}, "Action": "sts:AssumeRole"}]}


class Person:
    """One who has logged in with a role of his own, and may do what the laptop's policy says."""

    def __init__(self, laptop, name: str):
        self.laptop, self.name = laptop, name
        arn = laptop.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
        cloud = load.load(["cloud=twin"], local=Path("none")).cloud
        policies = permissions.roles(cloud, world.ACCOUNT, arn)
        self.policies = [policies["laptop"], policies["files"]]

    def inv(self, *words: str, ok: bool = True, overrides: tuple[str, ...] = ()):
        world.enforce(self.laptop.state, self.policies, self.name)
        try:
            return self.laptop.inv(*words, ok=ok, overrides=overrides)
        finally:
            world.enforce(self.laptop.state, None)

    def put(self, key: str, body: bytes) -> None:
        world.enforce(self.laptop.state, self.policies, self.name)
        try:
            self.laptop.client("s3").put_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}", Body=body)
        finally:
            world.enforce(self.laptop.state, None)


@pytest.fixture(scope="module")
def ann(laptop):
    stand_in_trainer.register(laptop.state)
    made = Person(laptop, "ann")
    made.inv("up", "deploy", "train")
    return made


@pytest.fixture(scope="module")
def eve(ann):
    return Person(ann.laptop, "eve")


def sentence(done) -> str:
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.stderr


def test_what_ann_has_made_is_hers_and_eve_is_told_whose_it_is(ann, eve):
    """H1: `inv publish` once took the newest run of the bucket, another person's or not."""
    (run_id,) = run_ids(ann.laptop)
    for verb in (["publish"], ["report"], ["logs"], ["predict", "a note"]):
        message = sentence(eve.inv(*verb, ok=False))
        assert "of yours called `tiny`" in message and f"`--run {run_id}` takes it" in message and ":assumed-role/ann/" in message, verb
    hers = f"run {run_id} is not yours: it belongs to arn:aws:sts::{world.ACCOUNT}:assumed-role/ann/"
    assert hers in eve.inv("logs", "--run", run_id).stderr
    assert "not yours" not in ann.inv("report").stderr


def test_a_run_that_eve_plants_is_neither_anns_newest_nor_does_it_write_beside_its_folder(ann, eve, tmp_path):
    """C1 and H1: a newer, sealed run whose manifest names a place on the laptop."""
    (run_id,) = run_ids(ann.laptop)
    config = ann.laptop.object(f"{PREFIX}/{run_id}/config.yaml").decode()
    planted = "20991231-235959-tiny-beef"
    loot, body = tmp_path / "loot", b"#!/bin/sh\n"
    manifest = json.loads(ann.laptop.object(f"{PREFIX}/{run_id}/manifest.json"))
    named = {str(loot): {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}}
    eve.put(f"{planted}/{loot}", body)
    eve.put(f"{planted}/config.yaml", config.replace(run_id, planted).replace("/ann/", "/eve/").encode())
    eve.put(f"{planted}/manifest.json", json.dumps(manifest | {"run_id": planted, "files": named}).encode())
    assert run_id in ann.inv("report").stdout
    message = sentence(ann.inv("report", "--run", planted, ok=False))
    assert "belongs to" in message and "it names a file" in message and not loot.exists()
    forged = config.replace(run_id, planted).encode()  # her own word for whose it is: nothing is signed, and a path is still none
    eve.put(f"{planted}/config.yaml", forged)
    assert "it names a file" in sentence(ann.inv("publish", ok=False)) and not loot.exists()
    ann.laptop.client("s3").delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{planted}/config.yaml")
    ann.laptop.client("s3").delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{planted}/manifest.json")


def test_settings_that_eve_has_written_are_never_carried_out_by_anns_box(ann, eve, tmp_path):
    """C2: ann's train went on with a planted run of her own settings, and Hydra called what it named."""
    settings = ("train.steps=12", "seed=5")
    stand_in_trainer.register(ann.laptop.state, crash_at=2)
    ann.inv("deploy")
    ann.inv("train", ok=False, overrides=settings)
    (run_id,) = phase_of(ann, "failed")
    config = ann.laptop.object(f"{PREFIX}/{run_id}/config.yaml")
    callback = f"hydra: {{callbacks: {{mine: {{_target_: builtins.open, _args_: ['{tmp_path}/ran', w]}}}}}}\n"
    eve.put(f"{run_id}/config.yaml", config + callback.encode())
    eve.put("20991231-235959-tiny-0bad/config.yaml", b"[]")
    stand_in_trainer.register(ann.laptop.state)
    done = ann.inv("deploy", "train", overrides=settings)
    assert f"left out: run `{run_id}`" in done.stderr and "is more than data" in done.stderr
    assert "left out: run `20991231-235959-tiny-0bad`" in done.stderr
    again = phase_of(ann, "done")[-1]
    assert "seed: 5" in ann.laptop.object(f"{PREFIX}/{again}/config.yaml").decode()
    assert phase_of(ann, "failed") == [run_id] and not (tmp_path / "ran").exists()


def phase_of(person: Person, phase: str) -> list[str]:
    known = [each for each in run_ids(person.laptop) if f"{PREFIX}/{each}/state.json" in person.laptop.objects()]
    return [each for each in known if state(person.laptop, each)["phase"] == phase]


def test_eve_neither_stops_nor_ends_nor_uses_anns_box(ann, eve):
    """Both have one login's name on their machines, so that the box's name is the same."""
    instance = ann.laptop.client("ec2").describe_instances()["Reservations"][0]["Instances"][0]["InstanceId"]
    for verb in (["stop-run"], ["down", "--force"], ["down", "--purge", "--yes"], ["up"], ["deploy"], ["train"], ["clean", "--yes"]):
        message = sentence(eve.inv(*verb, ok=False))
        assert f"({instance}) belongs to arn:aws:sts::{world.ACCOUNT}:assumed-role/ann" in message, verb
    assert ann.laptop.client("ec2").describe_instances()["Reservations"][0]["Instances"][0]["State"]["Name"] == "running"
    assert not [key for key in ann.laptop.objects() if "/locks/" in key], "a refused verb left its lock on her box"


def test_with_a_box_name_of_her_own_eve_goes_on_with_and_removes_no_run_of_anns(ann, eve):
    own = ("box.name=eve",)
    before = [key for key in ann.laptop.objects() if "/runs/" in key]
    eve.inv("clean", "--yes", "--older-than", "0", overrides=own, ok=False)
    assert [key for key in ann.laptop.objects() if "/runs/" in key] == before
    (finished, *_) = phase_of(ann, "done")
    for verb in (["train", "--run", finished], ["publish", "--run", f"{finished}x"], ["report", "--run", f"../{finished}"]):
        sentence(eve.inv(*verb, ok=False, overrides=own))
    printed = eve.inv("publish", "--run", finished, overrides=own)
    assert f"run {finished} is not yours: it belongs to" in printed.stderr


def test_what_eve_puts_into_the_folder_of_anns_run_is_refused_or_shown_as_it_is(ann, eve):
    finished = phase_of(ann, "done")[-1]
    folder = f"{PREFIX}/{finished}"
    kept = {
        name: ann.laptop.object(f"{folder}/{name}")
        for name in ("metrics.json", "state.json", "manifest.json", "published.json")
        if f"{folder}/{name}" in ann.laptop.objects()
    }
    for name, body in {"adapter/evil.safetensors": b"x", "adapter/../../../loot": b"x", "evaluations/\x1b[2J.json": b"[]"}.items():
        eve.put(f"{finished}/{name}", body)
    eve.put(f"{finished}/published.json", json.dumps({"url": "https://evil\x1b]0;mine\x07/[/x]", "files": []}).encode())
    shown = ann.inv("report", "--run", finished)
    assert "\x1b" not in shown.stdout + shown.stderr and "https://evil\\x1b]0;mine\\x07/[/x]" in shown.stdout
    for body in (b"[]", b"7", b"{", b'{"verified": true, "files": 3}'):
        eve.put(f"{finished}/published.json", body)
        done = ann.inv("publish", "--run", finished, ok=False)
        assert "Traceback" not in done.stderr and (done.returncode == 0 or "hint: " in done.stderr), done.stderr
    eve.put(f"{finished}/metrics.json", kept["metrics.json"].replace(b"0.", b"1.", 1) + b" ")
    for verb in ("report", "publish"):
        shutil.rmtree(ann.laptop.folder / "runs")  # else the file that is here, with the right hash, is the one that is read
        message = sentence(ann.inv(verb, "--run", finished, ok=False))
        assert "metrics.json" in message
    for name, body in kept.items():
        eve.put(f"{finished}/{name}", body)
    ann.inv("report", "--run", finished)
