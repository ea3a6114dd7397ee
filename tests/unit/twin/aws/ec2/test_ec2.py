"""EC2 beyond moto: spot, quotas, growing and copying volumes, keys and consoles; each answer as AWS gives it."""

import base64
import json
import re

import pytest
from botocore.exceptions import ClientError

from twin import world

PERSISTENT = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}}
NOTICE = """E=$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest
T=$(curl -sS --noproxy '*' -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$E/api/token")
curl -sf --noproxy '*' -H "X-aws-ec2-metadata-token: $T" "$E/meta-data/spot/instance-action" """


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, account, another):
    """A world whose clock and quotas may be changed."""
    state = tmp_path_factory.mktemp("another market")
    world.start(state, {}, account)
    yield another(state)
    world.stop(state)


def refused(call, **arguments) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"]


def spot_request(cloud, instance: str) -> dict:
    (request,) = cloud.ec2.describe_spot_instance_requests(Filters=[{"Name": "instance-id", "Values": [instance]}])["SpotInstanceRequests"]
    return request


def test_a_persistent_spot_instance_is_warned_stopped_and_started_again_by_aws(cloud, until):
    box = cloud.box(InstanceMarketOptions=PERSISTENT)
    about = cloud.ec2.describe_instances(InstanceIds=[box.instance])["Reservations"][0]["Instances"][0]
    assert (
        about["InstanceLifecycle"] == "spot"
        and about["SpotInstanceRequestId"] == spot_request(cloud, box.instance)["SpotInstanceRequestId"]
    )
    assert box.run(NOTICE)["Status"] == "Failed"
    world.ask(cloud.state, "interrupt", instance=box.instance)
    assert json.loads(box.run(NOTICE)["StandardOutputContent"])["action"] == "stop"
    world.forward(cloud.state, 100)
    assert cloud.instance_state(box.instance) == "running"
    world.forward(cloud.state, 30)
    until(lambda: cloud.instance_state(box.instance) == "stopped")
    assert spot_request(cloud, box.instance)["Status"]["Code"] == "instance-stopped-no-capacity"
    assert refused(cloud.ec2.start_instances, InstanceIds=[box.instance]) == "IncorrectSpotRequestState"
    world.ask(cloud.state, "capacity_is_back", instance=box.instance)
    assert box.run("echo again")["StandardOutputContent"] == "again\n"
    assert spot_request(cloud, box.instance)["State"] == "active"


def test_a_one_time_spot_instance_cannot_be_stopped_and_ends_with_its_interruption(cloud, until):
    instance = cloud.launch(InstanceMarketOptions={"MarketType": "spot"})
    assert refused(cloud.ec2.stop_instances, InstanceIds=[instance]) == "UnsupportedOperation"
    world.ask(cloud.state, "interrupt", instance=instance)
    world.forward(cloud.state, 121)
    until(lambda: cloud.instance_state(instance) == "terminated")
    assert spot_request(cloud, instance)["State"] == "closed"
    market = {"MarketType": "spot", "SpotOptions": {"InstanceInterruptionBehavior": "stop"}}
    assert refused(cloud.launch, InstanceMarketOptions=market) == "InvalidParameterCombination"


def test_a_persistent_request_outlives_its_instance_until_it_is_cancelled(cloud):
    instance = cloud.launch(InstanceMarketOptions=PERSISTENT)
    request = spot_request(cloud, instance)["SpotInstanceRequestId"]
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    assert spot_request(cloud, instance)["State"] == "open"  # on AWS another instance would come
    cloud.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request])
    assert spot_request(cloud, instance)["State"] == "cancelled"
    assert refused(cloud.ec2.cancel_spot_instance_requests, SpotInstanceRequestIds=["sir-00000000"]).endswith("NotFound")


def test_spot_prices_are_below_those_on_demand(cloud):
    history = cloud.ec2.describe_spot_price_history(InstanceTypes=["g6.2xlarge"], ProductDescriptions=["Linux/UNIX"])["SpotPriceHistory"]
    assert {row["AvailabilityZone"] for row in history} >= {"us-east-1a", "us-east-1b"}
    assert all(0 < float(row["SpotPrice"]) < 0.9776 for row in history)


def test_quotas_are_told_and_kept(cloud):
    quotas = cloud.__getattr__("service-quotas")
    names = {"L-DB2E81BA": "Running On-Demand G and VT instances", "L-3819A6DF": "All G and VT Spot Instance Requests"}
    for code, name in names.items():
        quota = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]
        assert quota["QuotaName"] == name and quota["Value"] > 0
    for code, extra, error in (
        ("L-DB2E81BA", {}, "VcpuLimitExceeded"),
        ("L-3819A6DF", {"InstanceMarketOptions": {"MarketType": "spot"}}, "MaxSpotInstanceCountExceeded"),
    ):
        world.ask(cloud.state, "quota", code=code, value=4)
        assert refused(cloud.launch, **extra) == error
        assert quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"] == 4
        world.ask(cloud.state, "quota", code=code, value=1024)
    assert refused(quotas.get_service_quota, ServiceCode="ec2", QuotaCode="L-00000000") == "NoSuchResourceException"


def test_offerings_are_by_zone(cloud):
    asked = {"LocationType": "availability-zone", "Filters": [{"Name": "instance-type", "Values": ["g6.2xlarge"]}]}
    zones = {one["Location"] for one in cloud.ec2.describe_instance_type_offerings(**asked)["InstanceTypeOfferings"]}
    assert "us-east-1a" in zones and all(zone.startswith("us-east-1") for zone in zones)


def test_a_volume_grows_and_its_file_system_when_told_to(cloud):
    box = cloud.box()
    volume, device = box.attach_volume()
    mount = box.root / "mnt/data"
    assert box.shell(f"mkfs.ext4 -q '{device}' && mkdir -p '{mount}' && mount '{device}' '{mount}'").returncode == 0
    assert refused(cloud.ec2.modify_volume, VolumeId=volume, Size=5) == "InvalidParameterValue"
    cloud.ec2.modify_volume(VolumeId=volume, Size=20)
    (state,) = cloud.ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"]
    assert state["ModificationState"] in ("optimizing", "completed") and state["TargetSize"] == 20
    size = f"df -Pk '{mount}' | awk 'NR == 2 {{ print $2 / 1048576 }}'"
    assert box.shell(f"blockdev --getsize64 '{device}'; {size}").stdout.split() == [str(20 * 2**30), "10"]
    assert box.shell(f"resize2fs '{device}' && {size}").stdout.split()[-1] == "20"
    for gigabytes in (21, 22, 23):
        cloud.ec2.modify_volume(VolumeId=volume, Size=gigabytes)
    assert refused(cloud.ec2.modify_volume, VolumeId=volume, Size=24) == "VolumeModificationRateExceeded"


def test_a_snapshot_holds_the_data_of_its_moment(cloud):
    box = cloud.box()
    volume, device = box.attach_volume()
    names = f"D='{device}' M='{box.root}/mnt/snap'; "
    box.shell(names + 'mkfs.ext4 -q "$D" && mkdir -p "$M" && mount "$D" "$M" && echo then >"$M/file"')
    snapshot = cloud.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    cloud.ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot])
    box.shell(names + 'echo later >"$M/file"')
    copy = cloud.ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=snapshot)["VolumeId"]
    cloud.ec2.attach_volume(VolumeId=copy, InstanceId=box.instance, Device="/dev/sdg")
    other = device.with_name(f"nvme-Amazon_Elastic_Block_Store_{copy.replace('-', '')}")
    done = box.shell(f"blkid -p -o value -s TYPE '{other}'; mkdir '{box.root}/mnt/copy'; mount '{other}' '{box.root}/mnt/copy'")
    assert done.stdout == "ext4\n" and (box.root / "mnt/copy/file").read_text() == "then\n"


def test_disks_of_a_box_are_told_apart_by_their_links_only(cloud, until):
    """Beside the volume lies the instance's own blank disk: code that takes any blank disk takes the wrong one."""
    box = cloud.box()
    _, device = box.attach_volume()
    links = {link.name: link.resolve() for link in (box.root / "dev/disk/by-id").iterdir()}
    (own,) = [name for name in links if name.startswith("nvme-Amazon_EC2_NVMe_Instance_Storage_AWS")]
    assert box.shell(f"blkid -p -o value -s TYPE '{box.root}/dev/disk/by-id/{own}'").returncode == 2
    assert len(links) == 2 and device.readlink().name == "nvme2n1"
    box.shell(f"mkfs.ext4 -q '{device}'; mkfs.ext4 -q '{box.root}/dev/nvme1n1'")
    cloud.ec2.stop_instances(InstanceIds=[box.instance])
    until(lambda: cloud.instance_state(box.instance) == "stopped")
    cloud.ec2.start_instances(InstanceIds=[box.instance])
    probe = "blkid -p -o value -s TYPE '{}'"
    assert box.shell(probe.format(device)).stdout == "ext4\n"
    assert box.shell(probe.format(box.root / "dev/nvme1n1")).returncode == 2  # wiped by the stop


def test_instance_connect_takes_a_key_for_a_minute(cloud):
    box = cloud.box()
    connect = cloud.__getattr__("ec2-instance-connect")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE" + "A" * 42 + " me"
    request = {"InstanceId": box.instance, "InstanceOSUser": "ubuntu", "SSHPublicKey": key}
    assert connect.send_ssh_public_key(**request, AvailabilityZone="us-east-1a")["Success"]
    path = box.root / "run/ec2-instance-connect/ubuntu"
    assert path.read_text().strip() == key
    world.forward(cloud.state, 61)
    assert not path.exists()
    assert refused(connect.send_ssh_public_key, **request | {"SSHPublicKey": "nonsense" * 12}) == "InvalidArgsException"
    cloud.ec2.stop_instances(InstanceIds=[box.instance])
    assert refused(connect.send_ssh_public_key, **request) == "EC2InstanceStateInvalidException"


def test_the_console_shows_the_host_key_of_the_box(cloud):
    box = cloud.box()
    text = cloud.ec2.get_console_output(InstanceId=box.instance, Latest=True)["Output"]
    key = re.search(r"-----BEGIN SSH HOST KEY KEYS-----\n(ssh-ed25519 (\S+))", text)
    assert (box.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().startswith(key[1])
    assert base64.b64decode(key[2]).startswith(b"\0\0\0\x0bssh-ed25519")
    assert re.search(r"256 SHA256:[A-Za-z0-9+/]{43} ", text)
    assert key[1] in cloud.ec2.get_console_output(InstanceId=box.instance)["Output"]


def test_a_port_is_opened_to_one_address_and_closed_again(cloud):
    group = cloud.ec2.create_security_group(GroupName="door", Description="d", VpcId=cloud.ec2.describe_vpcs()["Vpcs"][0]["VpcId"])[
        "GroupId"
    ]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.7/32", "Description": "me"}]}
    cloud.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    assert refused(cloud.ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[rule]) == "InvalidPermission.Duplicate"
    rules = cloud.ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"]
    (opened,) = [one for one in rules if not one["IsEgress"]]
    cloud.ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[opened["SecurityGroupRuleId"]])
    assert cloud.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"] == []


def test_the_root_volume_that_a_terminated_box_leaves_can_be_deleted(cloud, until):
    instance = cloud.launch()
    (root,) = cloud.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance]}])["Volumes"]
    cloud.ec2.modify_volume(VolumeId=root["VolumeId"], Size=root["Size"] + 1)
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    until(lambda: cloud.instance_state(instance) == "terminated")
    if [one for one in cloud.ec2.describe_volumes()["Volumes"] if one["VolumeId"] == root["VolumeId"]]:
        cloud.ec2.delete_volume(VolumeId=root["VolumeId"])
    assert root["VolumeId"] not in [one["VolumeId"] for one in cloud.ec2.describe_volumes()["Volumes"]]
