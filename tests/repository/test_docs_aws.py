"""Every command of docs/AWS.md runs, in its order, on an account that starts empty."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import stand_in_trainer
from conftest import ROOT, Laptop

from conf import load
from remote.account import permissions

PAGE = (ROOT / "docs/AWS.md").read_text()
COMMANDS = [line for block in re.findall(r"^```\n(.*?)^```", PAGE, re.M | re.S) for line in block.splitlines()]


def run(laptop, command: str) -> str:
    """As a user types it; only the cloud, the model and the place of the token are this test's own."""
    words = [str(laptop.token) if word == "~/.hub-token" else word for word in shlex.split(command)]
    verbs, overrides = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    if verbs[0] == "inv":
        settings = [word for word in overrides if word.split("=")[0] not in ("cloud", "experiment")]
        return laptop.inv(*verbs[1:], overrides=tuple(settings)).stdout
    if verbs[0] == "aws":
        return laptop.aws(*verbs[1:])
    assert verbs[0] == "python"
    program = [sys.executable, *(word.replace("cloud=aws", "cloud=twin") for word in words[1:])]
    return subprocess.run(program, cwd=ROOT, env=laptop.environment, text=True, capture_output=True, check=True).stdout


@pytest.mark.slow
def test_the_page_runs_from_an_empty_account_to_an_empty_account(tmp_path):
    from twin import world

    laptop = Laptop(tmp_path / "a reader")
    laptop.inv("twin.start", "--empty")
    try:
        laptop.token = tmp_path / "token"
        laptop.token.write_text(world.environment(laptop.state)["HF_TOKEN"])
        cloud = load.load(["cloud=twin"], local=Path("none")).cloud
        policies = permissions.roles(cloud, world.ACCOUNT, world.CALLER)
        world.enforce(
            laptop.state, [policies["laptop"], policies["files"], policies["setup"]]
        )  # an administrator's rights would hide a missing line
        outputs = {}
        for command in COMMANDS:
            if "train" in command:
                stand_in_trainer.register(laptop.state)
            outputs[command] = run(laptop, command)
        assert len(COMMANDS) == len(outputs) and len(COMMANDS) >= 8
        assert any(text == "fine-tune-slm\n" for text in outputs.values())  # the bucket's name, from Python
        assert any("is published and verified" in text for text in outputs.values())
        assert laptop.client("s3").list_buckets()["Buckets"] == []
        assert laptop.client("iam").list_roles()["Roles"] == []
        assert laptop.client("ec2").describe_volumes()["Volumes"] == []
    finally:
        world.stop(laptop.state)


def test_what_the_page_says_of_prices_is_what_the_price_table_says():
    import json

    prices = json.loads((ROOT / "twin/aws/services/prices.json").read_text())
    assert f"${100 * float(prices['storage']['prices']['gp3']):.2f}" in PAGE
    assert f"${prices['objects']['prices']['standard']} a GB" in PAGE
