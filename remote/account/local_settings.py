"""What `inv init` writes down on the laptop: the defaults of later commands, and a summary of the account for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conf import load, schema, yaml_file
from remote.account import fleet, names, stack
from remote.account.hub_token import TokenState
from remote.account.survey import ADOPTED
from remote.aws.session import Aws

# Settings that say what things of the account are called.
SETTINGS = ("prefix", "launch_template", *(setting for _, setting, _ in ADOPTED.values()))


@dataclass(frozen=True)
class Written:
    done: str
    summary: str  # the file


def write(aws: Aws, run: schema.Run, folder: Path, local: Path, changed: bool, token: TokenState) -> Written:
    """Write the defaults of later commands, and a summary of the account for people."""
    region: dict[str, str | None] = {} if aws.cloud.loopback else {"cloud.region": aws.cloud.region}
    _set(local, {"cloud": aws.cloud.name} | region | _stack_name(aws.cloud, local) | _own_names(aws.cloud, local))
    (folder / "setup-summary.txt").write_text(summary(aws, run, token), encoding="utf-8")
    done = "nothing to do" if not changed and token != "stored" else f"account {aws.caller.split(':')[4]} is ready"
    return Written(done, str(folder / "setup-summary.txt"))


def _stack_name(cloud: schema.Cloud, local: Path) -> dict[str, str | None]:
    """Which stack later commands are about; the one without a name need not be named, unless another was before."""
    named = any(_key(line) == "cloud.stack" for line in _lines(local))
    return {"cloud.stack": cloud.stack} if cloud.stack or named else {}


def _own_names(cloud: schema.Cloud, local: Path) -> dict[str, str]:
    """Names that the user has given: when `inv destroy` has removed those in Parameter Store, nothing else knows of his bucket."""
    overrides = [f"cloud={cloud.name}", f"cloud.region={cloud.region}", f"cloud.stack={cloud.stack or 'null'}"]
    usual = load.load(overrides, lambda _, early: stack.default_names(early), Path("none")).cloud
    lines = _lines(local)
    written = [name for name in SETTINGS if any(_key(line) == f"cloud.{name}" for line in lines)]
    return {f"cloud.{name}": value for name in SETTINGS if (value := getattr(cloud, name)) != getattr(usual, name) or name in written}


def summary(aws: Aws, run: schema.Run, token: TokenState) -> str:
    """The account in words: which names, ids and places; no secret."""
    ecr, cloud = aws.client("ecr"), aws.cloud
    uri = ecr.describe_repositories(repositoryNames=[cloud.repository])["repositories"][0]["repositoryUri"]
    values = {parameter["Name"]: parameter["Value"] for parameter in names.stored(aws)}
    about = {
        "AWS account": aws.caller.split(":")[4],
        "who asked": aws.caller,
        "region": cloud.region,
        "stack": cloud.own,
        "bucket": f"s3://{cloud.bucket}/{cloud.prefix.strip('/')}",
        "image repository": uri,
        "log group": cloud.log_group,
        "box": f"{' or '.join(run.box.instance_types)}, role {cloud.box_role}, launch template {cloud.launch_template}",
        "EC2 instance": values.get(f"{cloud.root}ec2/instance-id", "none"),
        "EBS volume": f"{values.get(f'{cloud.root}ebs/volume-id', 'none')} ({run.box.disk_gb} GB {run.box.disk_type} at {run.box.mount})",
        "Hub token": f"secret {cloud.hub_secret}: {'none yet' if token == 'none yet' else 'stored'}",
        "Hub repository": cloud.hub_repository or "OWNER/NAME of the run",
        "GitHub repository": f"{cloud.github}, with the variables {_variables(aws)}" if cloud.github else "none",
        "fleet": fleet.describe(aws, stack.find(aws)),
        "budget": f"{cloud.budget_usd} USD a month" if cloud.budget_usd else "none",
    }
    width = max(map(len, about))
    lines = ["fine-tune-slm in this account, as `inv init` found it when it was done", ""]
    lines += [f"{name:{width}}  {value}" for name, value in about.items()]
    lines += ["", f"{len(values)} names in Parameter Store:"]
    return "\n".join([*lines, *(f"  {name} = {value}" for name, value in sorted(values.items()))]) + "\n"


def _variables(aws: Aws) -> str:
    """The variables of .github/workflows/image.yml, under Settings, Secrets and variables, Actions, Variables."""
    _, partition, _, _, account, _ = aws.caller.split(":", 5)
    role = f"arn:{partition}:iam::{account}:role/{aws.cloud.own}-github"
    which = f" STACK={aws.cloud.own}" if aws.cloud.stack else ""
    return f"AWS_ROLE_ARN={role} AWS_REGION={aws.cloud.region} ECR_REPOSITORY={aws.cloud.repository}{which}"


def _set(path: Path, values: Mapping[str, str | None]) -> None:
    """Settings at the top of a YAML file; the rest of it stays as the user wrote it."""
    lines = _lines(path)
    for name, value in values.items():
        line = yaml_file.write({name: value}).strip()
        index = next((number for number, old in enumerate(lines) if _key(old) == name), None)
        if index is None:
            lines.append(line)
        else:
            lines[index] = line
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return ["# Your own defaults: `inv init` writes these lines, the rest is yours."]
    return yaml_file.decoded(path.read_bytes(), str(path)).splitlines()


def _key(line: str) -> str:
    return line.split(":")[0].strip()
