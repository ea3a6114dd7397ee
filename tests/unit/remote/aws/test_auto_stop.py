"""The schedule that stops a box from outside: armed once a start, and it says so where another time was meant."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conf.problem import Problem
from remote.aws import auto_stop
from remote.aws import session as calls
from twin import world


@pytest.fixture
def armed(aws):
    """The id of an instance whose schedule is made."""
    auto_stop.arm(aws, "i-0armed", 12)
    yield "i-0armed"
    auto_stop.disarm(aws, "i-0armed")


def test_another_length_of_life_holds_from_the_next_start_and_that_is_said(aws, armed, capsys):
    before = capsys.readouterr().err
    first = auto_stop.stop_time(aws, armed)
    stops = auto_stop.arm(aws, armed, 24).stops_at
    assert auto_stop.stop_time(aws, armed) == first and stops == f"{first:%Y-%m-%dT%H:%M:%SZ}"
    assert not before and f"AWS stops it at {stops}: its longest life counts from its start" in capsys.readouterr().err


def test_a_schedule_that_was_made_and_does_not_show_yet_is_no_traceback(aws, armed, monkeypatch):
    monkeypatch.setattr(auto_stop, "stop_time", lambda aws, instance_id: None)
    stops = datetime.strptime(auto_stop.arm(aws, armed, 12).stops_at, auto_stop.SHOWN).replace(tzinfo=UTC)
    assert abs(stops - datetime.now(UTC) - timedelta(hours=12) - auto_stop.GRACE) < timedelta(minutes=1)


def test_the_schedule_waits_for_a_role_that_was_made_just_now(aws, monkeypatch, capsys):
    """`inv init up`: IAM shows a new role to other services after a while only."""
    iam, state = aws.client("iam"), Path(aws.cloud.state)
    trust = iam.get_role(RoleName="fine-tune-slm-scheduler")["Role"]["AssumeRolePolicyDocument"]
    iam.create_role(RoleName="newborn", AssumeRolePolicyDocument=json.dumps(trust))
    monkeypatch.setattr(aws.cloud, "scheduler_role", "newborn")
    monkeypatch.setattr(calls.time, "sleep", lambda seconds: world.forward(state, 2))
    world.fault(state, "role-late", seconds=5)
    auto_stop.arm(aws, "i-0new", 12)
    assert capsys.readouterr().err.count("AWS does not see the scheduler's new role yet") == 1
    auto_stop.disarm(aws, "i-0new")
    monkeypatch.setattr(calls, "PROPAGATION", 0)
    world.fault(state, "role-late", seconds=36000)
    with pytest.raises(Problem, match="nothing would stop i-0new from outside") as refusal:
        auto_stop.arm(aws, "i-0new", 12)
    assert "`inv down` stops it" in refusal.value.hint
    world.fault(state, "role-late", seconds=0)
