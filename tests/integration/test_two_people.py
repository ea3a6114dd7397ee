"""Two people of one stack, each held to a laptop's policy: what one puts into the bucket is to the other data, and somebody else's."""

import hashlib
import json
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
