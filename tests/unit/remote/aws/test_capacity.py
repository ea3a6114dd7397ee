"""A box is looked for in every zone, and where there is none the sentence says what to do."""

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import loaded
import pytest
from botocore.exceptions import ClientError

from conf.problem import Problem
from remote.account import permissions
from remote.aws import capacity, instance, volume
from remote.aws import session as calls
from remote.doctor import quota
from twin import world


@pytest.fixture
def account(aws):
    """An account without a box; every fault is mended afterwards."""
    state = Path(aws.cloud.state)
    yield aws
    world.clear_faults(state)
    for code in ("L-DB2E81BA", "L-3819A6DF"):
        world.fault(state, "quota", code=code, value=1024)
    ec2 = aws.client("ec2")
    for one in ec2.describe_instances()["Reservations"]:
        ec2.terminate_instances(InstanceIds=[one["Instances"][0]["InstanceId"]])
    for one in ec2.describe_volumes(Filters=[{"Name": "tag-key", "Values": [instance.BOX]}])["Volumes"]:
        ec2.delete_volume(VolumeId=one["VolumeId"])


def state(account) -> Path:
    return Path(account.cloud.state)


def had(account, wanted, volume_zone: str | None = None) -> dict:
    """The box, once it runs."""
    made = instance.ensure(account, wanted, volume_zone)
    return SimpleNamespace(**vars(made), **vars(instance.wait(account, made.instance_id)))


def described(account, instance_id: str) -> dict:
    return account.client("ec2").describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def test_an_account_on_the_free_plan_is_told_so_with_the_command_that_changes_it(account, settings):
    world.fault(state(account), "free-plan")
    try:
        with pytest.raises(Problem, match="on AWS's Free plan, which launches no g6.2xlarge") as refusal:
            had(account, settings().box)
    finally:
        world.fault(state(account), "free-plan", kind="PAID")
    assert "`aws freetier upgrade-account-plan --region us-east-1 --account-plan-type PAID`" in refusal.value.hint


def test_a_role_that_was_made_just_now_is_waited_for(account, settings, capsys, monkeypatch):
    iam = account.client("iam")
    iam.create_instance_profile(InstanceProfileName="newborn")
    iam.add_role_to_instance_profile(InstanceProfileName="newborn", RoleName="fine-tune-slm-box")
    monkeypatch.setattr(calls.time, "sleep", lambda seconds: world.forward(state(account), 2))
    world.fault(state(account), "role-late", seconds=5)
    ec2, tried = account.client("ec2"), []

    def launch(kind: str, zone: str, market: dict) -> str:
        tried.append(zone)
        image = account.client("ssm").get_parameter(Name=settings().box.ami)["Parameter"]["Value"]
        asked = {"ImageId": image, "InstanceType": "g6.2xlarge", "MinCount": 1, "MaxCount": 1}
        return ec2.run_instances(**asked, IamInstanceProfile={"Name": "newborn"})["Instances"][0]["InstanceId"]

    assert capacity.launch_where_available(account, settings().box, "us-east-1a", launch).startswith("i-")
    assert set(tried) == {"us-east-1a"} and len(tried) > 1
    assert capsys.readouterr().err.count("AWS does not see the box's new role yet") == 1
    monkeypatch.setattr(calls, "PROPAGATION", 0)
    world.fault(state(account), "role-late", seconds=3600)
    iam.create_instance_profile(InstanceProfileName="never")
    with pytest.raises(ClientError, match="Invalid IAM Instance Profile name"):
        capacity.launch_where_available(
            account, settings().box, "us-east-1a", lambda kind, zone, market: missing(ec2, settings().box.ami, account)
        )


def missing(ec2, ami: str, account) -> str:
    image = account.client("ssm").get_parameter(Name=ami)["Parameter"]["Value"]
    return ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, IamInstanceProfile={"Name": "never"})["Instances"][0]["InstanceId"]


def test_a_zone_without_room_is_passed_over(account, settings):
    world.fault(state(account), "capacity", count=0, zones="us-east-1a,us-east-1b")
    assert had(account, settings().box).zone == "us-east-1c"


def test_where_no_zone_has_room_every_try_is_told(account, settings):
    world.fault(state(account), "capacity", count=0)
    with pytest.raises(
        Problem, match=r"no g6.2xlarge is available now \(us-east-1a: InsufficientInstanceCapacity; us-east-1b: (.|\n)*box.instance_type="
    ):
        instance.ensure(account, settings().box)


def test_a_type_without_a_gpu_is_refused_before_it_costs_anything(account, settings):
    with pytest.raises(Problem, match="m7i.xlarge has no GPU, says EC2") as caught:
        instance.ensure(account, settings("box.instance_type=[m7i.xlarge,g6.2xlarge]").box)
    assert "`box.gpu=false` trains on the CPU" in caught.value.hint
    assert instance.find(account, settings().box.name) is None
    assert had(account, settings("box.instance_type=m7i.xlarge", "box.gpu=false").box).instance_type == "m7i.xlarge"


def test_of_a_list_of_types_the_first_that_can_be_had_is_taken(account, settings, capsys):
    world.fault(state(account), "capacity", count=0, types="g6.2xlarge")
    wanted = settings("box.instance_type=[g6.2xlarge,g5.2xlarge]").box
    made = had(account, wanted)
    assert (made.instance_type, instance.type_of(account, wanted)) == ("g5.2xlarge", "g5.2xlarge")
    assert "no g6.2xlarge in us-east-1a: InsufficientInstanceCapacity" in capsys.readouterr().err


def test_of_a_list_of_types_the_cheapest_is_taken_when_asked(account, settings):
    words = ("box.instance_type=[g5.2xlarge,g6.2xlarge,g6e.2xlarge]", "box.allocation_strategy=lowest_price")
    assert had(account, settings(*words).box).instance_type == "g6.2xlarge"


def test_a_type_that_the_quota_leaves_no_room_for_is_passed_over(account, settings):
    world.fault(state(account), "quota", code="L-DB2E81BA", value=0)
    assert had(account, settings("box.instance_type=[g6.2xlarge,m7i.large]", "box.gpu=false").box).instance_type == "m7i.large"


def test_where_no_type_can_be_had_each_is_told_and_that_it_may_be_tried_again(account, settings):
    world.fault(state(account), "capacity", count=0)
    each = r"no g6.2xlarge and no g5.2xlarge is available now \(g6.2xlarge in us-east-1a: Insufficient.*g5.2xlarge in us-east-1a: Insuff"
    with pytest.raises(capacity.NoCapacity, match=rf"{each}(.|\n)*`inv up --wait 2h` goes on trying"):
        instance.ensure(account, settings("box.instance_type=[g6.2xlarge,g5.2xlarge]").box)


def test_a_box_of_another_type_than_the_settings_is_told_with_the_way_to_another(account, settings, capsys):
    made = had(account, settings().box).instance_id
    instance.ensure(account, settings("box.instance_type=g5.2xlarge").box)
    told = capsys.readouterr().err
    assert "is a g6.2xlarge and no g5.2xlarge" in told and f"aws ec2 terminate-instances --region us-east-1 --instance-ids {made}`" in told
    assert instance.type_of(account, settings("box.instance_type=g5.2xlarge").box) == "g6.2xlarge"


def test_where_the_volume_is_no_other_zone_is_tried(account, settings):
    world.fault(state(account), "capacity", count=0, zones="us-east-1b")
    with pytest.raises(
        Problem,
        match=r"now \(us-east-1b: InsufficientInstanceCapacity\)(.|\n)*out of us-east-1b(.|\n)*aws ec2 create-snapshot",
    ):
        instance.ensure(account, settings().box, volume_zone="us-east-1b")


def test_a_stopped_box_that_cannot_start_again_leaves_its_zone_by_the_commands_that_are_printed(account, settings):
    """A file system on the way: what the volume had, the box in the other zone has."""
    run = settings()
    made = had(account, run.box)
    disk = volume.ensure(account, run.box, made.instance_id, made.zone).volume_id
    volume.note_format(account, disk)
    instance.stop(account, made.instance_id)
    world.fault(state(account), "capacity", count=0, zones="us-east-1a")
    with pytest.raises(Problem, match=r"us-east-1a has no g6.2xlarge for i-") as refusal:
        instance.ensure(account, run.box)
    *commands, last = re.findall("^`(.*)`$", refusal.value.hint, re.M)
    assert last == "inv up"
    elsewhere = {
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "PATH": loaded.programs(),
    }
    world.enforce(
        state(account),
        [policy for who, policy in permissions.roles(account.cloud, world.ACCOUNT, world.CALLER).items() if who in ("laptop", "files")],
    )
    for command in commands:
        subprocess.run(["bash", "-euc", command], check=True, env=os.environ | elsewhere, capture_output=True)
    world.enforce(state(account), None)
    moved = had(account, run.box, volume.locate(account, run.box.name).zone)
    assert moved.zone == "us-east-1b" and moved.instance_id != made.instance_id
    attached = volume.ensure(account, run.box, moved.instance_id, moved.zone)
    assert (attached.changed, attached.created_blank) == ("attached", False) and attached.volume_id != disk


def test_an_instance_that_may_not_be_tagged_is_not_taken(account, settings, monkeypatch):
    monkeypatch.setattr("remote.confirm.ask", lambda *words: None)
    ec2 = account.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    id = ec2.run_instances(ImageId=image, InstanceType="g6.2xlarge", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    assert described(account, id), "it has been there for a while"
    world.fault(state(account), "access-denied", only="ec2.CreateTags", by="laptop")
    with pytest.raises(Problem, match=rf"does not let you take {id}(.|\n)*aws ec2 create-tags --resources {id}"):
        instance.ensure(account, settings("box.name=taken", f"box.adopt={id}").box)


def test_a_quota_that_is_used_up_leads_to_the_doctor(account, settings):
    world.fault(state(account), "quota", code="L-DB2E81BA", value=0)
    with pytest.raises(Problem, match=r"quota leaves no room for a g6.2xlarge(.|\n)*`inv doctor`"):
        instance.ensure(account, settings().box)


def test_a_spot_box_can_be_stopped_and_started_and_leaves_no_request_behind(account, settings):
    run = settings("box.spot=true")
    made = had(account, run.box).instance_id
    assert described(account, made)["InstanceLifecycle"] == "spot"
    instance.stop(account, made)
    again = had(account, run.box)
    assert (again.instance_id, again.changed) == (made, "started")
    instance.terminate(account, made)
    requests = account.client("ec2").describe_spot_instance_requests()["SpotInstanceRequests"]
    assert [one["State"] for one in requests] == ["cancelled"]


def test_where_there_is_no_spot_it_is_on_demand(account, settings):
    world.fault(state(account), "quota", code="L-3819A6DF", value=0)
    made = instance.ensure(account, settings("box.spot=true").box).instance_id
    assert "InstanceLifecycle" not in described(account, made)


def test_the_plan_knows_where_the_volume_is(account, settings):
    assert volume.locate(account, settings().box.name).zone is None
    run = settings()
    tags = [{"Key": instance.BOX, "Value": run.box.name}, {"Key": instance.OWNER, "Value": account.caller}]
    account.client("ec2").create_volume(AvailabilityZone="us-east-1d", Size=1, TagSpecifications=[{"ResourceType": "volume", "Tags": tags}])
    assert volume.locate(account, run.box.name).zone == "us-east-1d"


def refusing(*refusals: tuple[str, str]):
    """A launch that AWS refuses so often, in these words."""
    left = list(refusals)

    def launch(kind: str, zone: str, market: dict) -> str:
        if not left:
            return f"i-in-{zone}"
        code, message = left.pop(0)
        raise ClientError({"Error": {"Code": code, "Message": message}}, "RunInstances")

    return launch


def test_a_zone_without_a_default_subnet_is_passed_over(account, settings):
    none = ("InvalidInput", "No default subnet for availability zone: 'us-east-1a'.")
    assert capacity.launch_where_available(account, settings().box, None, refusing(none)) == "i-in-us-east-1b"
    with pytest.raises(ClientError, match="InvalidInput"):
        capacity.launch_where_available(account, settings().box, None, refusing(("InvalidInput", "something else")))


def test_an_account_that_aws_still_checks_is_told_to_wait(account, settings):
    with pytest.raises(Problem, match=r"AWS is still verifying this account(.|\n)*four hours at most"):
        capacity.launch_where_available(account, settings().box, None, refusing(("PendingVerification", "Your request is being validated")))


def test_a_box_with_a_long_name_is_launched_with_its_volume(account, settings):
    wanted = settings(f"box.name={'n' * 90}").box
    made = had(account, wanted)
    assert volume.ensure(account, wanted, made.instance_id, made.zone).changed == "created"


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        ("g6.2xlarge", ("L-DB2E81BA", "L-3819A6DF")),
        ("p4d.24xlarge", ("L-417A185B", "L-7212CCBC")),
        ("p5.4xlarge", ("L-417A185B", "L-C4BD4855")),
        ("p9.4xlarge", ("L-417A185B", None)),
        ("m7i.large", ("L-1216C47A", "L-34B43A08")),
        ("trn1.2xlarge", (None, None)),
    ],
)
def test_a_type_is_counted_by_the_quota_of_its_family_or_nobody_knows(kind, codes):
    assert quota.codes(kind) == codes


def test_a_spot_box_that_aws_took_back_is_waited_for_or_left_for_one_on_demand_by_the_commands_that_are_printed(account, settings):
    """Last in this file: afterwards it is two minutes later."""
    run = settings("box.spot=true")
    made = had(account, run.box)
    disk = volume.ensure(account, run.box, made.instance_id, made.zone).volume_id
    world.fault(state(account), "spot-notice", instance=made.instance_id)
    world.forward(state(account), 125)
    account.client("ec2").get_waiter("instance_stopped").wait(InstanceIds=[made.instance_id], WaiterConfig={"Delay": 1})
    with pytest.raises(Problem, match="only AWS starts it again") as refusal:
        instance.ensure(account, run.box)
    *commands, last = re.findall("^`(.*)`$", refusal.value.hint, re.M)
    assert last == "inv up -- box.spot=false"
    for command in commands:
        subprocess.run(["bash", "-euc", command], check=True, env=os.environ | {"PATH": loaded.programs()}, capture_output=True)
    account.client("ec2").get_waiter("instance_terminated").wait(InstanceIds=[made.instance_id], WaiterConfig={"Delay": 1})
    again = had(account, settings().box, made.zone)
    assert again.instance_id != made.instance_id
    assert volume.ensure(account, run.box, again.instance_id, again.zone).volume_id == disk


def reserved(account, kind: str = "g6.2xlarge", zone: str = "us-east-1b", count: int = 1) -> str:
    """A capacity reservation that the account has."""
    ec2 = world.client(state(account), "ec2")
    made = ec2.create_capacity_reservation(InstanceType=kind, InstancePlatform="Linux/UNIX", AvailabilityZone=zone, InstanceCount=count)
    return made["CapacityReservation"]["CapacityReservationId"]


@pytest.mark.slow
def test_a_reservation_decides_type_and_zone_and_is_free_again_when_the_box_stops(account, settings):
    id = reserved(account, "g6e.2xlarge")
    box = settings(f"box.reservation={id}").box
    assert instance.type_of(account, box) == "g6e.2xlarge", "the price is asked of it"
    policies = permissions.roles(account.cloud, world.ACCOUNT, world.CALLER)
    world.enforce(state(account), [policies["laptop"], policies["files"]])
    try:
        made = had(account, box)
        assert (made.instance_type, made.zone) == ("g6e.2xlarge", "us-east-1b")
        other = settings(f"box.reservation={id}", "box.name=other").box
        with pytest.raises(capacity.NoCapacity, match=f"all 1 of {id} .g6e.2xlarge in us-east-1b. are in use") as caught:
            instance.ensure(account, other)
        assert "`inv up --wait 2h` waits" in caught.value.hint and "`inv up -- box.reservation=null`" in caught.value.hint
        instance.stop(account, made.instance_id)
        second = had(account, other).instance_id
        with pytest.raises(capacity.NoCapacity, match=f"nothing of the capacity reservation that {made.instance_id} was launched into"):
            instance.ensure(account, box)
        instance.stop(account, second)
        assert instance.ensure(account, box).changed == "started"
    finally:
        world.enforce(state(account), None)


@pytest.mark.slow
def test_a_reservation_that_takes_no_box_is_said_to_before_anything_is_launched(account, settings):
    ec2, id = world.client(state(account), "ec2"), reserved(account)
    for words, zone, what in (
        (("box.reservation=cr-0",), None, "there is no capacity reservation cr-0 in us-east-1"),
        ((f"box.reservation={id}",), "us-east-1d", f"{id} is in us-east-1b, and the box's volume or subnet is in us-east-1d"),
        ((f"box.reservation={reserved(account, 'm6i.large')}",), None, "is of m6i.large, which has no GPU"),
    ):
        with pytest.raises(Problem, match=what):
            instance.ensure(account, settings(*words).box, zone)
    ec2.cancel_capacity_reservation(CapacityReservationId=id)
    with pytest.raises(Problem, match=f"the capacity reservation {id} .g6.2xlarge in us-east-1b. is cancelled"):
        instance.ensure(account, settings(f"box.reservation={id}").box)
    assert not [one for each in ec2.describe_instances()["Reservations"] for one in each["Instances"] if one["State"]["Name"] == "running"]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"ReservationType": "capacity-block"}, "is a Capacity Block"),
        ({"InstancePlatform": "Windows"}, "is for Windows, and the box's image"),
    ],
)
def test_a_reservation_of_another_kind_is_refused(account, settings, monkeypatch, more, what):
    usual = {"InstanceType": "g6.2xlarge", "AvailabilityZone": "us-east-1a", "State": "active", "InstancePlatform": "Linux/UNIX"}
    monkeypatch.setattr(capacity.describe, "capacity_reservation", lambda *asked: usual | more)
    with pytest.raises(Problem, match=what):
        instance.ensure(account, settings("box.reservation=cr-0").box)


@pytest.mark.parametrize("words", [("box.reservation=r-1",), ("box.reservation=cr-0a", "box.spot=true")])
def test_a_reservation_is_named_by_its_id_and_is_not_of_spot(settings, words):
    with pytest.raises(Problem, match=r"box\.reservation"):
        settings(*words)
