"""Which instance and volume were used last, in Parameter Store: for people and other tools; ours finds both by their tags."""

from conf.process.screen import screen
from remote.aws.session import Aws


def write(aws: Aws, instance_id: str, volume_id: str) -> None:
    """Write the ids of box and volume down in Parameter Store."""
    ssm = aws.client("ssm")
    root, cloud = aws.cloud.root, aws.cloud
    known = {f"{root}ec2/instance-id": (cloud.instance_id, instance_id), f"{root}ebs/volume-id": (cloud.volume_id, volume_id)}
    for name, (before, now) in known.items():
        if before == now:
            continue
        try:
            ssm.put_parameter(Name=name, Value=now, Type="String", Overwrite=True)
        except ssm.exceptions.ClientError as error:  # only a record: the box is up anyway
            screen.note(f"  {name} was not written down ({error.response['Error']['Code']})")
