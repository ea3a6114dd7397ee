"""The volume of a new box, by answers that say no more than AWS's."""

import types
from dataclasses import replace
from pathlib import Path

import pytest

from remote.aws import instance, volume

ONLY_WHEN_FOUND = """\
    attached = [attachment["InstanceId"] for attachment in _attachments(volume) if attachment["State"] in ("attaching", "attached")]
    if volume is None:
        volume, changed = _create(aws, box, zone), "created"  # an answer that says nothing of attachments
"""
BEFORE = """    if volume is None:
        volume, changed = _create(aws, box, zone), "created"
    attached = [attachment["InstanceId"] for attachment in volume["Attachments"] if attachment["State"] in ("attaching", "attached")]
"""


@pytest.fixture
def running(aws, settings):
    """A box that runs, without a volume."""
    wanted = settings(f"box.name=disk{len(aws.client('ec2').describe_volumes()['Volumes'])}").box
    made = instance.ensure(aws, wanted)
    yield wanted, made.instance_id, instance.wait(aws, made.instance_id).zone
    aws.client("ec2").terminate_instances(InstanceIds=[made.instance_id])


def test_a_new_volume_is_attached_though_its_answer_says_nothing_of_attachments(aws, running):
    wanted, instance, zone = running
    made = volume.ensure(aws, wanted, instance, zone)
    assert made.changed == "created"
    assert volume.ensure(aws, wanted, instance, zone) == replace(made, changed=None)


def test_code_that_reads_attachments_of_a_new_volume_fails_here_as_it_does_on_aws(aws, running):
    """The emulation was once more generous than AWS: every test passed, and the first `inv up` of every account failed."""
    source = Path(volume.__file__).read_text()
    assert source.count(ONLY_WHEN_FOUND) == 1
    mutant = types.ModuleType("mutant")
    exec(compile(source.replace(ONLY_WHEN_FOUND, BEFORE), "mutant", "exec"), mutant.__dict__)
    with pytest.raises(KeyError, match="Attachments"):
        mutant.ensure(aws, *running)
