"""What a fleet has cost: each instance by the second, on spot by the prices of its zone in that time, also when EC2 has forgotten it."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from remote.cost import fleet_usage

START = datetime(2026, 11, 30, 12, tzinfo=UTC)
WHEN = START.strftime(fleet_usage.FORMAT)


class Missing(ClientError):
    def __init__(self):
        super().__init__({"Error": {"Code": "ResourceNotFoundException"}}, "FilterLogEvents")


class Account:
    """S3, EC2 and CloudWatch Logs as far as the costs of a fleet are asked about."""

    def __init__(self, objects=None, shown=(), ends=None, prices=()):
        self.cloud = SimpleNamespace(own="fine-tune-slm", bucket="b", prefix="p", region="us-east-1")
        self.objects = {f"p/fleet/{name}.json": json.dumps(body).encode() for name, body in (objects or {}).items()}
        self.shown, self.ends, self.prices, self.asked = shown, ends, prices, []
        self.exceptions = SimpleNamespace(ResourceNotFoundException=Missing, NoSuchKey=KeyError, ClientError=ClientError)

    def client(self, service):
        return self

    def get_paginator(self, operation):
        return SimpleNamespace(paginate=getattr(self, operation))

    def list_objects_v2(self, Bucket, Prefix):
        yield {"Contents": [{"Key": key, "Size": len(body)} for key, body in self.objects.items() if key.startswith(Prefix)]}

    def get_object(self, Bucket, Key):
        body = self.objects[Key]
        return {"Body": SimpleNamespace(read=lambda most=-1: body), "ETag": "e", "ContentLength": len(body)}

    def put_object(self, Bucket, Key, Body):
        self.objects[Key] = Body

    def describe_instances(self, Filters):
        yield {"Reservations": [{"Instances": list(self.shown)}]}

    def filter_log_events(self, logGroupName, startTime):
        self.asked.append((logGroupName, startTime))
        if self.ends is None:
            raise Missing()
        events = [{"time": when, "detail": {"instance-id": name, "state": state}} for name, state, when in self.ends]
        yield {"events": [{"message": json.dumps(event)} for event in events] + [{"message": "{}"}, {"message": "no JSON"}]}

    def describe_spot_price_history(self, InstanceTypes, AvailabilityZone, ProductDescriptions, StartTime, EndTime):
        self.asked.append((InstanceTypes, AvailabilityZone, StartTime, EndTime))
        yield {"SpotPriceHistory": [{"Timestamp": when, "SpotPrice": price} for when, price in self.prices]}


def record(name="i-1", **changed) -> dict:
    return {"instance": name, "instance_type": "g6.2xlarge", "zone": "us-east-1b", "spot": True, "launched": WHEN} | changed


def after(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).strftime(fleet_usage.FORMAT)


def shown(name: str, state: str, **more) -> dict:
    where = {"Placement": {"AvailabilityZone": "us-east-1b"}, "InstanceType": "g6.2xlarge", "LaunchTime": START}
    return {"InstanceId": name, "State": {"Name": state}, **where, **more}


def test_an_instance_that_ec2_has_forgotten_ends_when_eventbridge_first_said_so():
    account = Account({"i-1": record()}, ends=[("i-1", "terminated", after(900)), ("i-1", "shutting-down", after(840)), ("i-9", "x", WHEN)])
    (one,) = fleet_usage.usage(account)
    assert (one.seconds, one.there) == (840, False)
    assert account.asked == [("/aws/events/fine-tune-slm/fleet-ends", START.timestamp() * 1000)]


def test_what_was_read_there_once_is_on_record_and_not_asked_again():
    account = Account({"i-1": record()}, ends=[("i-1", "shutting-down", after(840))])
    first = fleet_usage.usage(account)
    account.ends, account.asked = None, []
    assert fleet_usage.usage(account) == first and account.asked == []
    assert json.loads(account.objects["p/fleet/i-1.json"])["ended"] == after(840)


def test_one_that_nobody_wrote_down_is_found_by_its_tag_and_written_down():
    account = Account(shown=[shown("i-2", "terminated", InstanceLifecycle="spot")], ends=[("i-2", "shutting-down", after(30))])
    (one,) = fleet_usage.usage(account)
    assert (one.spot, one.zone, one.seconds) == (True, "us-east-1b", 60), "a minute at least"
    assert json.loads(account.objects["p/fleet/i-2.json"])["spot"] is True


def test_what_runs_costs_until_now_and_one_of_unknown_end_is_unknown():
    account = Account({"i-3": record("i-3")}, shown=[shown("i-2", "running")])
    by_name = {one.instance: one for one in fleet_usage.usage(account)}
    assert by_name["i-2"].there and by_name["i-2"].seconds > 0 and by_name["i-2"].words.endswith(", running")
    assert by_name["i-3"].seconds is None and fleet_usage.cost(account, by_name["i-3"]) == (None, None)


def test_spot_is_paid_by_the_prices_of_its_zone_while_it_ran():
    account = Account(
        {"i-1": record()},
        ends=[("i-1", "shutting-down", after(3600))],
        prices=[(START + timedelta(seconds=1800), "0.6"), (START - timedelta(hours=5), "0.2")],
    )
    (one,) = fleet_usage.usage(account)
    dollars, hourly = fleet_usage.cost(account, one)
    assert dollars == pytest.approx(0.4) and hourly == pytest.approx(0.4)
    assert account.asked[-1] == (["g6.2xlarge"], "us-east-1b", START, START + timedelta(seconds=3600))
    assert "spot in us-east-1b" in one.words


def test_a_price_that_aws_does_not_tell_any_more_is_unknown():
    account = Account({"i-1": record(ended=after(100))})
    (one,) = fleet_usage.usage(account)
    assert fleet_usage.cost(account, one) == (None, None)


@pytest.mark.parametrize("broken", [{"instance": 3}, {"launched": "yesterday"}, {"zone": None}, {"ended": "never"}])
def test_a_record_that_cannot_be_read_is_left_out(broken, capsys):
    account = Account({"i-1": record(**broken), "i-2": record("i-2", ended=after(100))})
    assert [one.instance for one in fleet_usage.usage(account)] == ["i-2"]
    assert "fleet/i-1.json" in capsys.readouterr().err


def test_the_emulated_account_tells_the_same(aws):
    """Through the real protocols: a record in S3, the words of EventBridge in its log group, a price of the zone."""
    from remote.aws.s3 import Store

    logs, group = aws.client("logs"), "/aws/events/fine-tune-slm/fleet-ends"
    began = datetime.now(UTC) - timedelta(hours=1)
    launched, ended = (began + timedelta(seconds=seconds) for seconds in (0, 840))
    body = record(launched=launched.strftime(fleet_usage.FORMAT))
    Store(aws).put("fleet/i-1.json", json.dumps(body).encode())
    (open_ended,) = fleet_usage.usage(aws)
    assert open_ended.seconds is None, "there is no log group yet"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    event = {"time": ended.strftime(fleet_usage.FORMAT), "detail": {"instance-id": "i-1", "state": "shutting-down"}}
    written = {"timestamp": int(ended.timestamp() * 1000), "message": json.dumps(event)}
    logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=[written])
    (one,) = fleet_usage.usage(aws)
    dollars, hourly = fleet_usage.cost(aws, one)
    assert one.seconds == 840 and dollars == pytest.approx(hourly * 840 / 3600) and 0 < hourly < 0.9776
    assert fleet_usage.root_disk(aws) is None  # the account has no fleet
