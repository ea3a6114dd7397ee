"""The template: clean, small enough, and nothing in it that opens the account."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conf.problem import Problem
from remote.account import local_settings, names, stack, survey
from remote.doctor import drift
from twin.aws.cloudformation import templates
from twin.aws.services import ecr_lifecycle
from twin.aws.services.ecr_lifecycle import Image

TEXT = stack.TEMPLATE.read_text()


def test_cfn_lint_finds_nothing():
    done = subprocess.run([Path(sys.executable).parent / "cfn-lint", stack.TEMPLATE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_fits_into_a_request():
    assert len(TEXT.encode()) <= 51_200


@pytest.mark.parametrize("word", ["FullAccess", "SecurityGroupIngress", "KeyName", "AccessKey", "SecretString"])
def test_nothing_of_it_opens_the_account(word):
    assert word not in TEXT


def test_every_parameter_of_the_template_is_given(settings):
    parameters = set(stack.parameters(settings())) | {"Vpc"}
    declared = set(templates.read(TEXT)["Parameters"])
    assert {name for name in declared if not name.startswith("Make")} == parameters
    decided = {parameter for parameter, _, _ in survey.ADOPTED.values()} | {"MakeGithubProvider"}
    assert {name for name in declared if name.startswith("Make")} == decided


@pytest.mark.parametrize(
    ("github", "subjects"),
    [
        (None, (None, None)),
        ("me/my.repo_2", ("repo:me/my.repo_2:ref:refs/heads/main", "repo:me@*/my.repo_2@*:ref:refs/heads/main")),
        ("me@12/mine@34", ("repo:me@12/mine@34:ref:refs/heads/main",) * 2),
    ],
)
def test_a_repository_is_let_in_by_its_name_or_by_githubs_numbers_alone(github, subjects):
    assert stack.subjects(github) == subjects


@pytest.mark.parametrize(
    "github", ["me/*", "*/mine", "me", "me/mine/x", "me@*/mine@*", "me/mi?e", "me@1/mine", "https://github.com/me/mine"]
)
def test_what_is_no_repository_or_would_be_more_than_one_is_refused(settings, github):
    with pytest.raises(Problem, match="use OWNER/NAME, or OWNER@ID/NAME@ID"):
        settings(f"cloud.github='{github}'")


def test_no_more_than_three_names_are_made_at_once():
    """PutParameter takes about three a second (terraform-aws-github-runner issue 2944)."""
    resources = templates.read(TEXT)["Resources"]
    assert len(names.NAMES) >= 26
    assert templates.throttled(resources, "AWS::SSM::Parameter", 3) == set()
    assert len(templates.throttled({name: about | {"DependsOn": []} for name, about in resources.items()}, "AWS::SSM::Parameter", 3)) > 20


def test_every_name_that_the_settings_ask_for_is_made_and_no_other():
    conf = stack.TEMPLATE.parents[2] / "conf"
    asked = set(
        re.findall(r"\$\{ssm:(/fine-tune-slm/[^,}]+)", "".join(path.read_text() for path in [conf / "main.yaml", *conf.glob("*/*.yaml")]))
    )
    records = {"ecr/registry", "secrets/aws-credentials-name", "secrets/docker-token-name"}
    assert set(names.NAMES) - asked == {f"/fine-tune-slm/{name}" for name in records}
    assert asked <= set(names.NAMES)


def lifecycle_policy() -> str:
    """The lifecycle policy of the repository."""
    return templates.read(TEXT)["Resources"]["Images"]["Properties"]["LifecyclePolicy"]["LifecyclePolicyText"]


def test_the_doctor_compares_a_repository_with_what_init_makes():
    assert json.loads(lifecycle_policy()) == drift.LIFECYCLE_POLICY


@pytest.mark.parametrize("parts", [0, 2], ids=["one manifest each", "an index of an image and its provenance each"])
def test_of_twelve_builds_the_ten_newest_remain(parts):
    """With all that they are made of; and what was left of the others is gone a day later."""
    images = []
    for build in range(12):
        children = tuple(f"{build}.{part}" for part in range(parts))
        images += [Image(child, (), build * 60) for child in children] + [Image(str(build), (f"{build:016x}",), build * 60, children)]
    gone = ecr_lifecycle.expired(lifecycle_policy(), images, 3 * ecr_lifecycle.DAY)
    assert gone == {"0", "1"}
    left = [image for image in images if image.digest not in gone]
    assert ecr_lifecycle.expired(lifecycle_policy(), left, 3 * ecr_lifecycle.DAY) == {
        f"{build}.{part}" for build in range(2) for part in range(parts)
    }


def test_settings_are_written_without_touching_the_rest_of_a_users_file(tmp_path):
    local = tmp_path / "local.yaml"
    local.write_text("# mine\ncloud: twin\nlora:\n  r: 8\n")
    local_settings._set(local, {"cloud": "aws", "cloud.region": "eu-west-1"})
    assert local.read_text() == "# mine\ncloud: aws\nlora:\n  r: 8\ncloud.region: eu-west-1\n"


def test_a_new_account_is_looked_for_in_the_region_of_the_environment(aws, monkeypatch):
    """As every other call: AWS_REGION is what the AWS CLI reads, boto3 itself reads AWS_DEFAULT_REGION only."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-2")
    names = stack.default_names({"loopback": False})
    assert names["/fine-tune-slm/aws/region"] == "eu-west-1" and names["/fine-tune-slm/s3/bucket"].endswith("-eu-west-1")
