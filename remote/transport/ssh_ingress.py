"""The way in by SSH: port 22 of the box's security group, and the key by which the box proves itself. Closed unless `box.ssh=true`.

The only file with boto3's security groups and console output.
"""

import ipaddress
import re
import urllib.request

from conf.problem import Problem
from conf.process.screen import screen
from remote.aws import instance
from remote.aws.session import DENIED, Aws, pauses

PORT = 22
ADDRESS_SERVICE = "https://checkip.amazonaws.com"  # answers with the caller's address, as AWS sees it
# cloud-init writes a host's public keys between these lines of the console, at the first boot of an instance.
SHOWN = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
KEY = re.compile(r"\b(ssh-ed25519|ecdsa-sha2-nistp256) ([A-Za-z0-9+/]+={0,2})")


def open_port(aws: Aws, instance_id: str, name: str, source: str) -> str:
    """Open port 22 of the box's security group to this machine's address and to nobody else."""
    group = instance.ssh_endpoint(aws, instance_id).group
    wanted = _own_network(aws) if source == "auto" else source
    open_networks = _networks(aws, group)
    _revoke(aws, group, [network for network, whose in open_networks.items() if whose == _description(name) and network != wanted])
    if wanted not in open_networks:
        _authorize(aws, group, wanted, name)
    return wanted


def close_port(aws: Aws, instance_id: str, name: str) -> bool:
    """Close port 22 of the box's security group again, and look that it is closed."""
    group = instance.ssh_endpoint(aws, instance_id).group
    ours = [network for network, whose in _networks(aws, group).items() if whose == _description(name)]
    if not ours:
        return False
    _revoke(aws, group, ours)
    if still_open := [network for network in ours if network in _networks(aws, group)]:
        raise _still_open(group, still_open, "AWS still shows it")
    return True


def pin_host_key(aws: Aws, instance_id: str, seconds: int) -> str | None:
    """Read the key by which the box proves itself from its console, once: from then on it must have that key."""
    known = instance.ssh_endpoint(aws, instance_id).host_key
    for _ in pauses(seconds, longest=10):
        shown = _console_host_key(aws, instance_id)
        if shown and known and shown != known:
            raise host_key_changed(instance_id, "its console shows another host key than it did at first")
        if known or (not shown and not seconds):
            return known or None
        if shown:
            aws.client("ec2").create_tags(Resources=[instance_id], Tags=[{"Key": instance.HOST_KEY, "Value": shown}])
            return shown
    raise _no_host_key(instance_id, seconds)


def note_host_key(aws: Aws, instance_id: str) -> str | None:
    """Note the box's host key while its console still shows it, should SSH be wanted later."""
    try:
        return None if instance.ssh_endpoint(aws, instance_id).host_key else pin_host_key(aws, instance_id, 0)
    except aws.client("ec2").exceptions.ClientError as error:  # only a precaution: the box is up anyway
        screen.note(f"  the host key was not noted ({error.response['Error']['Code']})")
        return None


def host_key_changed(instance_id: str, evidence: str) -> Problem:
    """The refusal of a box that may be another one than it says."""
    return Problem(
        f"{instance_id} is not trusted: {evidence}",
        "somebody may be between you and the box; nothing was sent. If you changed its key yourself: "
        f"`aws ec2 delete-tags --resources {instance_id} --tags Key={instance.HOST_KEY}`, then `inv up -- box.ssh=true`",
        reason="refused",
    )


def _console_host_key(aws: Aws, instance_id: str) -> str:
    """The host key in the console's output, or nothing."""
    # `Latest`: without it a Nitro instance shows what its console held some minutes after the boot, up to twenty minutes late.
    output = aws.client("ec2").get_console_output(InstanceId=instance_id, Latest=True).get("Output", "")
    blocks = SHOWN.findall(output)
    keys = dict(KEY.findall(blocks[-1])) if blocks else {}
    return next((f"{kind} {keys[kind]}" for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256") if kind in keys), "")


def _no_host_key(instance_id: str, seconds: int) -> Problem:
    return Problem(
        f"the console of {instance_id} has shown no host key for {seconds} s, and without it the box could be anybody",
        "cloud-init writes it at an instance's first boot; where that is long ago, a new box shows it, and the volume stays: "
        f"`aws ec2 terminate-instances --instance-ids {instance_id}`, then `inv up -- box.ssh=true`",
        reason="unreachable",
    )


def _own_network(aws: Aws) -> str:
    """This machine's address as the box sees it."""
    if aws.cloud.loopback:
        return "127.0.0.1/32"
    return public_network(ADDRESS_SERVICE)


def public_network(url: str) -> str:
    """The address that a service sees us come from, as a network of one."""
    hint = "name it yourself: `box.ssh_from=ADDRESS/32`"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read(100).decode(errors="replace").strip()
    except OSError as error:
        raise Problem(f"{url} does not tell this machine's address: {error}", hint, reason="unreachable") from error
    try:
        return f"{ipaddress.IPv4Address(text)}/32"
    except ValueError as error:
        raise Problem(f"{url} answered {text!r}, which is no IPv4 address", hint, reason="unreachable") from error


def _description(name: str) -> str:
    """What a rule of ours says in its description: another box's rule of the same group is not ours."""
    return f"fine-tune-slm:box={name}"


def _networks(aws: Aws, group: str) -> dict[str, str]:
    """The networks that port 22 is open to, each with its rule's description."""
    permissions = aws.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    rules = [rule for rule in permissions if rule["IpProtocol"] == "tcp" and rule.get("FromPort") == rule.get("ToPort") == PORT]
    return {network["CidrIp"]: network.get("Description", "") for rule in rules for network in rule.get("IpRanges", [])}


def _authorize(aws: Aws, group: str, network: str, name: str) -> None:
    ec2 = aws.client("ec2")
    ranges = [{"CidrIp": network, "Description": _description(name)}]
    try:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[_rule(ranges)])
    except ec2.exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        if code == "InvalidPermission.Duplicate":  # the first answer was lost, and botocore has asked twice
            return
        if code not in DENIED:
            raise
        command = f"aws ec2 authorize-security-group-ingress --group-id {group} --protocol tcp --port {PORT} --cidr {network}"
        what = f"you may not open port {PORT} of the box's security group {group} ({code})"
        hint = f"your administrator must allow ec2:AuthorizeSecurityGroupIngress and ec2:RevokeSecurityGroupIngress, or run `{command}`"
        raise Problem(what, hint, reason="refused") from error


def _revoke(aws: Aws, group: str, networks: list[str]) -> None:
    ec2 = aws.client("ec2")
    for network in networks:
        try:
            ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[_rule([{"CidrIp": network}])])
        except ec2.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code in DENIED:
                raise _still_open(group, [network], f"you may not change it: {code}") from error
            if code != "InvalidPermission.NotFound":  # the first answer was lost, and botocore has asked twice
                raise


def _still_open(group: str, networks: list[str], why: str) -> Problem:
    command = f"aws ec2 revoke-security-group-ingress --group-id {group} --protocol tcp --port {PORT} --cidr {networks[0]}"
    return Problem(f"port {PORT} of {group} is still open to {', '.join(networks)} ({why})", f"`{command}`", reason="refused")


def _rule(ranges: list[dict]) -> dict:
    return {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "IpRanges": ranges}
