"""A run on AWS Batch whose instance is a real system: its container, its user, its instance's firewall, and that nothing of it is left."""

import json
import re
from pathlib import Path

import psutil
import pytest
from fleets import with_fleet
from machine import Machine, needed, trainers

from remote.aws.batch import CACHE
from twin import world
from twin.box.machine import loops

pytestmark = pytest.mark.system
STEPS = 40
NOTICE = 1200  # seconds of the world's clock: on a busy machine an instance takes longer than AWS's 120 to save and send
SETTINGS = ("fleet=batch", f"train.steps={STEPS}", "train.save_steps=4", f"train.eval_steps={STEPS}", "train.batch_size=2")
EXISTS = ("pending", "running", "shutting-down", "stopping", "stopped")


class Fleet(Machine):
    def instances(self, *states: str) -> list[str]:
        """Those of the fleet."""
        filters = [{"Name": "tag:fine-tune-slm:fleet", "Values": ["*"]}, {"Name": "instance-state-name", "Values": list(states)}]
        pages = self.client("ec2").describe_instances(Filters=filters)["Reservations"]
        return [one["InstanceId"] for page in pages for one in page["Instances"]]

    def hand_over(self, *settings: str) -> tuple[str, str, psutil.Process]:
        """A run that has begun, its instance, and its trainer, which is held: it takes no step before somebody lets it."""
        before = set(self.run_ids())
        self.inv("train", "--detach", overrides=settings)
        (trainer,) = self.until(trainers)
        trainer.suspend()
        (run_id,), (instance,) = set(self.run_ids()) - before, self.instances("running")
        return run_id, instance, trainer

    def has_checkpoint(self, run_id: str, instance: str) -> bool:
        return any((self.state / "boxes" / instance / "root" / CACHE[1:] / "runs" / run_id).glob("checkpoints/*/COMPLETE"))


@pytest.fixture(scope="module")
def fleet(prepared, tmp_path_factory):
    """An account with a fleet, and with this tree's image, which a box has made ready."""
    needed()
    made = with_fleet(tmp_path_factory.mktemp("an account with a fleet"), kind=Fleet)
    try:
        made.inv("up", "deploy", "down")
        yield made
    finally:
        world.stop(made.state)
    assert [back for back in loops.attached().values() if back.startswith(str(made.state))] == []


@pytest.fixture(scope="module")
def begun(fleet):
    """A run whose trainer is held: its id, its instance and the trainer."""
    run_id, instance, trainer = fleet.hand_over(*SETTINGS)
    yield run_id, instance, trainer
    if trainer.is_running():
        trainer.resume()


def container(fleet, instance: str) -> dict:
    return json.loads(fleet.run("docker inspect $(docker ps --quiet)", instance=instance))[0]


def test_the_job_is_a_container_of_the_image_that_the_box_has_pushed(fleet, begun):
    (pushed,) = fleet.client("ecr").describe_images(repositoryName="fine-tune-slm")["imageDetails"]
    _, instance, _ = begun
    made = container(fleet, instance)
    assert made["State"]["Running"] and made["Config"]["Image"].endswith(f"fine-tune-slm@{pushed['imageDigest']}")
    assert made["Config"]["Cmd"][0] == "carrier" and made["Config"]["User"] == "0:0"
    held = made["HostConfig"]
    assert held["ReadonlyRootfs"] and held["NetworkMode"] == "host" and not held["Privileged"] and held["Memory"] > 0
    assert [(mount["Source"], mount["Destination"]) for mount in made["Mounts"]] == [(CACHE, CACHE)]
    mounted = fleet.run("docker exec $(docker ps --quiet) cat /proc/mounts", instance=instance).splitlines()
    in_memory = {place: options.split(",") for _, place, kind, options, *_ in map(str.split, mounted) if kind == "tmpfs"}
    assert "noexec" in in_memory["/run/fine-tune-slm"] and "noexec" not in in_memory["/tmp"], "Triton loads what it compiles"


def test_the_trainer_is_the_images_user_and_has_no_credentials_while_the_carrier_has_them(fleet, begun):
    run_id, _, trainer = begun
    lines = Path(f"/proc/{trainer.pid}/status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert set(trainer.uids()) == set(trainer.gids()) == {10001} and status["Groups"] == ""
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0 and status["NoNewPrivs"] == "1"
    assert [name for name in trainer.environ() if name.startswith(("AWS_", "ECS_")) or name in ("BUCKET", "HUB_SECRET", "HF_TOKEN")] == []
    carrier = trainer.parent()
    assert set(carrier.uids()) == {0} and run_id in carrier.cmdline()
    assert carrier.environ()["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"].startswith("/")


BOOT = "rm --force /run/ecs-agent; /opt/box/late-boot.sh /var/lib/cloud/scripts/per-boot/*; ls /run/ecs-agent"  # one behind the first
ASK = """
import http.client, sys
def ask(address, method, path, **headers):
    service = http.client.HTTPConnection(address, timeout=5)
    try:
        service.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return service.getresponse().status
    except OSError as error:
        return type(error).__name__
print(
    ask("169.254.169.254", "PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds="60"),
    ask("169.254.170.2", "GET", sys.argv[1]),
    ask("127.0.0.1:51679", "GET", sys.argv[1]),
)
"""


def test_the_instances_firewall_refuses_the_trainer_both_addresses_of_credentials_and_lets_the_carrier_have_them(fleet, begun):
    """The trainer is told here even where the credentials are, which it cannot read."""
    _, instance, trainer = begun
    place = trainer.parent().environ()["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]

    def inside(user: int) -> list[str]:
        return fleet.run(f"docker exec --user {user} $(docker ps --quiet) python -c '{ASK}' {place}", instance=instance).split()

    assert inside(10001) == ["ConnectionRefusedError"] * 3
    assert inside(0) == ["200"] * 3
    fleet.run("iptables -w -F OUTPUT", instance=instance)  # as a reboot leaves them
    assert inside(10001) == ["200"] * 3
    fleet.run(BOOT, instance=instance)
    assert inside(10001) == ["ConnectionRefusedError"] * 3
    assert fleet.run("docker exec --user 10001 $(docker ps --quiet) cat /proc/1/environ", ok=False, instance=instance) == ""


def test_where_the_firewall_cannot_be_made_no_job_is_taken(fleet, begun):
    """The same script once more, where `iptables` fails."""
    _, instance, _ = begun
    without = "iptables() { false; }; export -f iptables; " + BOOT
    assert fleet.run(without, ok=False, instance=instance) == ""
    assert fleet.run(f"rm /etc/systemd/system/ecs.service; {BOOT}", instance=instance) == "/run/ecs-agent"


def test_the_run_is_sealed_published_and_nothing_of_it_is_left(fleet, begun):
    run_id, instance, trainer = begun
    trainer.resume()
    done = fleet.inv("train", "publish", overrides=SETTINGS)
    assert f"{run_id} is done" in done.stdout + done.stderr
    fleet.ended_well(run_id, STEPS, resumed=0)
    assert fleet.inv("logs", "--run", run_id, overrides=SETTINGS).stdout == fleet.of(run_id, "log.txt").decode()
    fleet.until(lambda: not fleet.instances(*EXISTS))
    fleet.until(lambda: not (fleet.state / "boxes" / instance).exists())
    assert [back for back in loops.attached().values() if instance in back] == [] and not trainers()


def test_a_run_whose_instance_aws_takes_back_goes_on_on_another_one(fleet):
    settings, before = (*SETTINGS, "seed=2"), set(fleet.instances("terminated"))
    with fleet.counted() as most:
        run_id, first, trainer = fleet.hand_over(*settings)
        trainer.resume()
        fleet.until(lambda: fleet.has_checkpoint(run_id, first))
        trainer.suspend()
        world.fault(fleet.state, "spot-notice", instance=first, seconds=NOTICE)
        trainer.resume()
        fleet.until(lambda: "AWS takes this spot instance back at" in (fleet.phase(run_id).get("evidence") or ""))
        world.forward(fleet.state, NOTICE)
        done = fleet.inv("train", "publish", overrides=settings)
    assert f"{run_id} is done" in done.stdout + done.stderr
    assert most() == 1
    fleet.ended_well(run_id, STEPS, resumed=1)
    assert len(set(fleet.instances(*EXISTS, "terminated")) - before) == 2


def test_what_the_ledger_says_is_what_the_meter_does(fleet):
    fleet.until(lambda: not fleet.instances(*EXISTS))
    assert fleet.client("ec2").describe_volumes(Filters=[{"Name": "tag:fine-tune-slm:fleet", "Values": ["*"]}])["Volumes"] == []
    rows = {row["id"]: row for row in world.costs(fleet.state)["rows"] if row["kind"] == "instance"}
    lines = re.findall(r"^(i-\w+) g6.2xlarge spot in .* (\S+) *$", fleet.inv("costs", overrides=SETTINGS).stdout, re.MULTILINE)
    assert len(lines) == 3 and {one for one, _ in lines} == set(fleet.instances("terminated"))
    assert all(rows[one]["until"] and float(usd) == pytest.approx(rows[one]["usd"], abs=0.01) for one, usd in lines)
