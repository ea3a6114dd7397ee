"""The meter: what the account would pay, by the second of a clock that the test moves."""

import pytest

from twin import show, world
from twin.aws.services import meter

HOUR = 3600


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, account, another):
    """A world in which at first nothing costs money."""
    state = tmp_path_factory.mktemp("a thrifty world")
    world.start(state, {}, account)
    yield another(state)
    world.stop(state)


def usd(cloud) -> dict[str, float]:
    costs = world.costs(cloud.state)
    return costs["sums"] | {"total": costs["total"]}


def test_a_box_is_paid_for_while_it_runs_and_its_disk_also_when_it_is_off(cloud):
    assert usd(cloud)["total"] == 0
    box = cloud.box()
    volume, _ = box.attach_volume()
    cloud.ec2.modify_volume(VolumeId=volume, Size=100)
    world.forward(cloud.state, 2 * HOUR)
    cloud.ec2.stop_instances(InstanceIds=[box.instance])
    stopped = usd(cloud)
    assert stopped["instance"] == pytest.approx(2 * 0.9776, rel=0.01)
    world.forward(cloud.state, 30 * 24 * HOUR)
    later = usd(cloud)
    assert later["instance"] == stopped["instance"]
    rows = [row for row in world.costs(cloud.state)["rows"] if row["id"] == volume]
    assert [row["gigabytes"] for row in rows] == [10, 100]  # by size, from the moment of the change
    assert rows[1]["usd"] == pytest.approx(0.08 * 100, rel=0.01)
    assert later["disk_while_stopped"] == pytest.approx(0.08 * 100, rel=0.01)
    assert later["total"] == pytest.approx(sum(later[kind] for kind in ("instance", "volume", "snapshot", "objects")))


def test_a_start_costs_a_minute_at_least_and_spot_its_own_price(cloud):
    instance = cloud.launch(InstanceMarketOptions={"MarketType": "spot"})
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    (row,) = [row for row in world.costs(cloud.state)["rows"] if row["id"] == instance]
    assert row["seconds"] == 60 and row["what"] == "g6.2xlarge spot"
    assert row["usd"] == pytest.approx(0.9776 * 0.4 / 60, rel=0.01)


def test_a_schedule_that_stops_a_box_stops_the_meter_at_its_moment(cloud):
    """However far the clock is moved at once."""
    box, before = cloud.box(), usd(cloud)["instance"]
    cloud.schedule("limit", cloud.at(HOUR), box.instance)
    world.forward(cloud.state, 10 * HOUR)
    assert usd(cloud)["instance"] - before == pytest.approx(0.9776, rel=0.01)


def test_snapshots_and_objects_are_paid_for_by_what_they_hold(cloud):
    volume = cloud.ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, VolumeType="gp3")["VolumeId"]
    (cloud.state / "volumes" / volume / "data").mkdir()
    (cloud.state / "volumes" / volume / "data/file").write_bytes(bytes(50_000_000))
    cloud.ec2.create_snapshot(VolumeId=volume)
    cloud.s3.put_object(Bucket="things", Key="k", Body=bytes(20_000_000))
    world.forward(cloud.state, meter.MONTH)
    paid = usd(cloud)
    assert paid["snapshot"] == pytest.approx(0.05 * 50_000_000 / 2**30, rel=0.01)
    assert paid["objects"] == pytest.approx(0.023 * 20_000_000 / 2**30, rel=0.01)
    cloud.s3.delete_object(Bucket="things", Key="k")
    before = usd(cloud)["objects"]
    world.forward(cloud.state, meter.MONTH)
    assert usd(cloud)["objects"] == before


def test_an_unknown_price_is_said_and_not_guessed(cloud):
    cloud.launch(InstanceType="p4d.24xlarge")
    world.forward(cloud.state, HOUR)
    costs = world.costs(cloud.state)
    assert "instance p4d.24xlarge on-demand" in costs["unknown"]
    text = show.bill(costs)
    assert "unknown" in text and "the price of instance p4d.24xlarge on-demand is unknown" in text


def test_many_uploads_stay_one_line_and_cost_the_same():
    made = meter.Meter(None, "us-east-1", lambda: 250.0)
    made.closed = [meter.Usage("objects", "b", "standard", 1 + n, n, n + 1) for n in range(200)]
    before = sum(one.amount(250) for one in made.closed)
    made.merge_objects()
    assert len(made.closed) == 1 and made.closed[0].amount(250) == pytest.approx(before)


def test_time_covered_by_overlapping_spans_counts_once():
    assert meter.covered(0, 100, [(10, 30), (20, 40), (90, 200), (-5, 5)]) == pytest.approx(0.45)
