"""The schedule that stops a box from outside: armed once a start, and it says so where another time was meant."""

from datetime import UTC, datetime, timedelta

import pytest

from remote import switch


@pytest.fixture
def armed(aws):
    """The id of an instance whose schedule is made."""
    switch.arm(aws, "i-0armed", 12)
    yield "i-0armed"
    switch.disarm(aws, "i-0armed")


def test_another_length_of_life_holds_from_the_next_start_and_that_is_said(aws, armed, capsys):
    before = capsys.readouterr().err
    first = switch.look(aws, armed)
    stops = switch.arm(aws, armed, 24)["stops_at"]
    assert switch.look(aws, armed) == first and stops == f"{first:%Y-%m-%dT%H:%M:%SZ}"
    assert not before and f"AWS stops it at {stops}: its longest life counts from its start" in capsys.readouterr().err


def test_a_schedule_that_was_made_and_does_not_show_yet_is_no_traceback(aws, armed, monkeypatch):
    monkeypatch.setattr(switch, "look", lambda aws, instance_id: None)
    stops = datetime.strptime(switch.arm(aws, armed, 12)["stops_at"], switch.SHOWN).replace(tzinfo=UTC)
    assert abs(stops - datetime.now(UTC) - timedelta(hours=12) - switch.GRACE) < timedelta(minutes=1)
