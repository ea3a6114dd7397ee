"""The laptop dies at any call while an account is made ready, or taken back: the same verb again, and nothing is lost or left."""

import pytest
from crash import killed
from test_account import ODD, buckets, empty, left, parameters

pytestmark = pytest.mark.slow  # minutes: both verbs are killed at every call


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """An account in whose Parameter Store somebody has put all names by hand, initialised by a laptop that died at every call."""
    from twin import world

    made = empty(tmp_path_factory.mktemp("an account"))
    made.odd = {f"/fine-tune-slm/{name}": value for name, value in (pair.split() for pair in ODD.split(","))}
    for name, value in made.odd.items():
        made.client("ssm").put_parameter(Name=name, Value=value, Type="String")
    made.token = made.folder / "token"
    made.token.write_text(world.environment(made.state)["HF_TOKEN"] + "\n")
    world.fault(made.state, "slow", only="ssm.PutParameter", seconds=0.5, count=30)  # so that CloudFormation is met at its work
    made.calls = killed(made, "init", "--yes", "--token", str(made.token))
    yield made
    world.stop(made.state)


def test_an_account_is_made_ready_and_every_name_keeps_its_value(account):
    changes = {"CreateChangeSet", "DeleteParameter", "ExecuteChangeSet", "PutSecretValue"}
    assert changes | {"GetParameters", "DescribeStacks", "DescribeChangeSet", "GetParametersByPath"} <= set(account.calls)
    names = parameters(account)
    assert {name: names[name] for name in account.odd} == account.odd
    assert buckets(account) == ["odd-bucket"]
    assert account.client("secretsmanager").get_secret_value(SecretId="odd/token")["SecretString"] == account.token.read_text().strip()
    assert "nothing to do" in account.inv("init", "--yes").stdout


def test_nothing_is_left_of_it(account):
    account.inv("up", "down")
    calls = killed(account, "destroy", "--data", "--yes")
    changes = {"DeleteSchedule", "TerminateInstances", "DeleteVolume", "DeleteStack", "DeleteObjects", "DeleteBucket"}
    assert changes | {"DescribeInstances", "DescribeStacks", "ListObjectVersions"} <= set(calls)
    left(account, volumes=[])
    assert buckets(account) == []
