"""The box that is there: its agent, and what it says itself of its driver and its way out."""

from urllib.parse import urlsplit

from conf.finding import BROKEN, NOTE, OK, Finding
from remote.aws import instance
from remote.doctor.check import Context
from remote.plan import answers, verbs
from remote.plan.script import compose

# Older ones hang on ec2messages, which AWS gives up: https://github.com/aws/amazon-ssm-agent/blob/mainline/RELEASENOTES.md
LEAST_AGENT = (3, 3, 40, 0)
RESTART = "`inv down` and `inv up` restart it"
GATEWAY = "let its subnet out to it on port 443: a route to an internet or NAT gateway, no network rule against it"


def box_state(context: Context) -> list[Finding]:
    """The box, where there is one: whose it is, whether its agent answers, and what it can reach."""
    box = instance.find(context.aws, context.run.box.name)
    if box is None:
        return [Finding("box", OK, f"`{context.run.box.name}`: none yet; its driver and its way out are looked at when it runs")]
    if box.state != "running":
        return [Finding("box", OK, f"{box.id} is {box.state}; its driver and its way out are looked at when it runs")]
    return [*_metadata(box), *_running(context, box)]


def _metadata(box: instance.Instance) -> list[Finding]:
    if box.metadata_closed:
        return []
    what = f"the metadata service of {box.id} answers containers, too"
    return [Finding("metadata", BROKEN, what, "code in one could act by the box's role", "`inv up` closes it to them")]


def _running(context: Context, box: instance.Instance) -> list[Finding]:
    if context.run.box.ssh:  # it is for a box whose agent does not answer
        return _self_check(context, box.id)
    wanted = [{"Key": "InstanceIds", "Values": [box.id]}]
    agents = context.aws.client("ssm").describe_instance_information(Filters=wanted)["InstanceInformationList"]
    if not agents or agents[0]["PingStatus"] != "Online":
        return [Finding("agent", BROKEN, f"the agent on {box.id} does not answer", "every command for the box goes through it", RESTART)]
    return [_agent(box.id, agents[0].get("AgentVersion", "")), *_self_check(context, box.id)]


def _agent(id: str, version: str) -> Finding:
    if version and tuple(int(part) for part in version.split(".")) < LEAST_AGENT:
        least = ".".join(map(str, LEAST_AGENT))
        command = f"`aws ssm send-command --document-name AWS-UpdateSSMAgent --instance-ids {id}`"
        return Finding("agent", NOTE, f"{id} has agent {version}", f"from {least} on it needs no ec2messages, which AWS ends", command)
    return Finding("agent", OK, f"{id}: version {version or '?'}, Online")


def _self_check(context: Context, id: str) -> list[Finding]:
    """What the box finds when it looks at itself."""
    hosts = endpoints(context)
    settings = {"MOUNT_PATH": context.run.box.mount, "REGION": context.run.cloud.region, "GPU": context.run.box.gpu, "LEASE": 60}
    settings["HOSTS"] = " ".join(f"{name}={host}:{port}" for name, (host, port) in hosts.items())
    result = verbs.transport(context.run)(context.aws, id).run(compose("probe", settings), 60, "doctor")
    if result.code != 0:
        what = f"{id} could not look at itself (exit code {result.code}): {result.stderr.strip().splitlines()[-1:] or ''}"
        return [Finding("box", BROKEN, what, "every script would fail so", RESTART)]
    probe = answers.read("probe", answers.Probe, result.facts)
    return [_driver(context, probe.driver), *_lost_gpus(probe.gpu_lost), _egress(id, hosts, probe.unreachable)]


def _driver(context: Context, version: str) -> Finding:
    if not context.run.box.gpu:
        return Finding("driver", OK, "no GPU is asked for")
    if not version:
        return Finding("driver", BROKEN, "the driver shows no GPU", "training would run on the CPU", RESTART)
    if int(version.split(".")[0]) < context.driver:
        what = f"driver {version} is older than {context.driver}, which the image's CUDA needs"
        command = "`inv down --purge`, then `inv up`: a new box has the newest image of AWS; or another `box.ami=...`"
        return Finding("driver", BROKEN, what, "torch would see no GPU", command)
    return Finding("driver", OK, f"{version}; the image's CUDA needs {context.driver} or newer")


def _lost_gpus(runs: tuple[str, ...]) -> list[Finding]:
    """Runs whose container was given the GPU and cannot use it any more."""
    command = "`inv down --force`, then `inv up deploy train` goes on from its newest checkpoint"
    why = "it fails at its next use of the GPU; systemd was reloaded, or the driver changed under it"
    return [Finding("gpu", BROKEN, f"the container of {run} has lost the GPU, which the box has", why, command) for run in runs]


def _egress(id: str, hosts: dict, unreachable: tuple[str, ...]) -> Finding:
    if unreachable:
        named = ", ".join(f"{name} ({hosts[name][0]})" for name in unreachable)
        return Finding("egress", BROKEN, f"{id} cannot reach {named}", "it takes commands, images, data and models from there", GATEWAY)
    return Finding("egress", OK, f"{id} reaches {', '.join(hosts)}")


def endpoints(context: Context) -> dict[str, tuple[str, int]]:
    """Host and port of all that a box must reach."""
    urls = {name: context.aws.client(name).meta.endpoint_url for name in ("ssm", "ecr", "s3", "secretsmanager", "logs", "ec2")}
    urls["ssmmessages"] = urls["ssm"].replace("//ssm.", "//ssmmessages.")  # botocore has no client of it
    urls["hub"] = context.hub
    parts = {name: urlsplit(url) for name, url in urls.items()}
    return {name: (part.hostname or "", part.port or {"http": 80}.get(part.scheme, 443)) for name, part in parts.items()}
