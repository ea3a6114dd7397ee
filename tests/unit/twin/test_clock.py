"""The world's clock, and what falls due on it."""

import json
import time

import pytest
from botocore.exceptions import ClientError

from twin import clock, world

STOP = "arn:aws:scheduler:::aws-sdk:ec2:stopInstances"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, account, another):
    """A world whose clock may be moved."""
    state = tmp_path_factory.mktemp("a later world")
    world.start(state, {}, account)
    yield another(state)
    world.stop(state)


def test_a_schedule_stops_its_instance_when_the_clock_reaches_it(cloud, until):
    box = cloud.box()
    cloud.schedule("stop-it", cloud.at(3600), box.instance, ActionAfterCompletion="DELETE")
    world.forward(cloud.state, 3500)
    assert cloud.instance_state(box.instance) == "running"
    world.forward(cloud.state, 200)
    until(lambda: cloud.instance_state(box.instance) == "stopped")
    calls = [json.loads(line) for line in cloud.journal().splitlines()]
    assert [one["by"] for one in calls if one["operation"] == "StopInstances"] == ["SCHEDULER"]
    assert cloud.scheduler.list_schedules()["Schedules"] == []


def test_a_schedule_fires_on_the_real_clock_too_and_a_deleted_one_never(cloud, until):
    scheduled, spared = cloud.box(), cloud.box()
    cloud.schedule("kept", cloud.at(2), scheduled.instance)
    cloud.schedule("deleted", cloud.at(3600), spared.instance)  # an hour away: it must not fire before it is deleted
    cloud.scheduler.delete_schedule(Name="deleted")
    until(lambda: cloud.instance_state(scheduled.instance) in ("stopping", "stopped"))
    world.forward(cloud.state, 3700)
    assert cloud.instance_state(spared.instance) == "running"
    assert cloud.scheduler.get_schedule(Name="kept")["State"] == "ENABLED"


def test_a_schedule_whose_role_may_not_is_refused_or_does_nothing(cloud):
    box = cloud.box()
    with pytest.raises(ClientError, match="must allow AWS EventBridge Scheduler to assume the role"):
        cloud.schedule("wrong", cloud.at(60), box.instance, Target={"Arn": STOP, "RoleArn": cloud.role[:-10]})
    with pytest.raises(ClientError, match="Invalid Schedule Expression"):
        cloud.schedule("when", "at(tomorrow)", box.instance)
    cloud.iam.delete_role_policy(RoleName="box-scheduler", PolicyName="actions")
    cloud.schedule("powerless", cloud.at(60), box.instance)
    world.forward(cloud.state, 61)
    assert cloud.instance_state(box.instance) == "running"


def test_the_box_and_its_agent_go_with_the_clock(cloud, until):
    box = cloud.box()
    before = time.time()
    now = world.forward(cloud.state, 7200)
    assert now - before > 7200
    assert abs(int(box.run("date +%s")["StandardOutputContent"]) - world.forward(cloud.state, 0)) < 5
    assert box.run("date -u -d @0 +%Y")["StandardOutputContent"] == "1970\n"
    agent = cloud.agents()[box.instance]
    assert agent["PingStatus"] == "Online" and agent["LastPingDateTime"].timestamp() > before + 7000
    cloud.ec2.stop_instances(InstanceIds=[box.instance])
    until(lambda: cloud.instance_state(box.instance) == "stopped")
    world.forward(cloud.state, 3600)
    assert cloud.agents()[box.instance]["PingStatus"] == "ConnectionLost"
    cloud.ec2.start_instances(InstanceIds=[box.instance])
    launched = cloud.ec2.describe_instances(InstanceIds=[box.instance])["Reservations"][0]["Instances"][0]["LaunchTime"]
    assert launched.timestamp() > now + 3500


def test_the_clock_goes_forward_only(cloud):
    with pytest.raises(world.WorldError, match="forward only"):
        world.forward(cloud.state, -1)


def test_alarms_go_off_in_order_each_at_its_own_moment():
    made, seen = clock.Clock(), []
    start = made.now()
    for seconds in (30, 10, 20):
        made.at(start + seconds, lambda seconds=seconds: seen.append((seconds, round(made.now() - start))))
    made.at(start + 15, lambda: 1 / 0)
    made.forward(25)
    assert seen == [(10, 10), (20, 20)]
    made.forward(10)
    assert seen[-1] == (30, 30)
