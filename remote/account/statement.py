"""A line of a policy, the account that it is about, and the text that IAM takes."""

import json
import re
from dataclasses import dataclass, field, replace

from conf import schema

# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length
MANAGED = 6_144  # characters of a managed policy
INLINE = {"user": 2_048, "group": 5_120, "role": 10_240}  # of all inline policies of one of them together


@dataclass(frozen=True)
class Statement:
    sid: str
    why: str
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)  # `*` only where AWS lets one name no resource for these actions
    condition: dict = field(default_factory=dict)
    implied: str = ""  # the page that says which other call needs these actions

    def as_dict(self) -> dict:
        """The statement as it stands in a policy."""
        statement = {"Sid": self.sid, "Effect": "Allow", "Action": list(self.actions), "Resource": list(self.resources)}
        return statement | ({"Condition": self.condition} if self.condition else {})


@dataclass(frozen=True)
class Account:
    """The account and region, and the names of what is in it."""

    partition: str
    account_id: str
    cloud: schema.Cloud
    principal: str  # the user or role that the laptop acts as

    def arn(self, service: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{self.cloud.region}:{self.account_id}:{resource}"

    def public(self, service: str, resource: str) -> str:
        """What AWS itself has in this region."""
        return f"arn:{self.partition}:{service}:{self.cloud.region}::{resource}"

    def role(self, name: str) -> str:
        return f"arn:{self.partition}:iam::{self.account_id}:role/{name}"

    @property
    def bucket(self) -> str:
        return f"arn:{self.partition}:s3:::{self.cloud.bucket}"

    @property
    def objects(self) -> str:
        return "/".join(part for part in (self.bucket, self.cloud.prefix.strip("/"), "*") if part)

    @property
    def secret(self) -> str:
        return self.secret_named(self.cloud.hub_secret)

    def secret_named(self, name: str) -> str:
        return self.arn("secretsmanager", f"secret:{name}-??????")  # AWS ends each secret's name with six characters

    @property
    def webhook_secrets(self) -> str:
        return self.arn("secretsmanager", f"secret:{self.cloud.webhook_secrets}*")

    @property
    def topic(self) -> str:
        """Of notices, where there is one."""
        return self.arn("sns", self.cloud.own)

    @property
    def names(self) -> tuple[str, ...]:
        """All of ours in Parameter Store, and the path to them."""
        return tuple(self.arn("ssm", f"parameter/{self.cloud.own}{end}") for end in ("", "/*"))

    def box_tag_condition(self, key: str) -> dict:
        """The condition that a tag which says whose box something is of names one of this stack's; the key says where the tag stands."""
        ours, others = self.cloud.box_names
        tag = f"{key}/fine-tune-slm:box"
        return {"StringLike": {tag: ours}} | ({"StringNotLike": {tag: others}} if self.cloud.stack is None else {})

    @property
    def ours_by_tag(self) -> dict:
        return self.box_tag_condition("aws:ResourceTag")

    @property
    def created_with_our_tag(self) -> dict:
        """Only what gets our tag as it is made."""
        return self.box_tag_condition("aws:RequestTag")

    @property
    def not_retagged(self) -> dict:
        """No tag that it gets makes it the box of another stack, whose laptops would take it for theirs."""
        ours, others = self.cloud.box_names
        tag = "aws:RequestTag/fine-tune-slm:box"
        return {"StringNotLike": {tag: others}} if self.cloud.stack is None else {"StringLikeIfExists": {tag: ours}}

    @property
    def profile(self) -> str:
        return f"arn:{self.partition}:iam::{self.account_id}:instance-profile/{self.cloud.instance_profile}"

    @property
    def images(self) -> str:
        return self.arn("ecr", f"repository/{self.cloud.repository}")

    @property
    def registry(self) -> str:
        """What the names of images in this account's ECR begin with."""
        if self.cloud.loopback:
            return "127.0.0.1:*"  # a port of this machine
        suffix = "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"
        return f"{self.account_id}.dkr.ecr.{self.cloud.region}.{suffix}"


def combine_conditions(*conditions: dict) -> dict:
    """What all of these conditions want."""
    combined: dict = {}
    for condition in conditions:
        for operator, tests in condition.items():
            combined[operator] = combined.get(operator, {}) | tests
    return combined


def merge_statements(statements: list[Statement], *conditions: dict) -> list[Statement]:
    """The same rights in fewer characters, which IAM limits: one statement for each of these conditions, and one for the same resources.

    No action of these fits the other's resources, so that nothing more is allowed.
    """
    merged: dict[str, Statement] = {}
    for statement in statements:
        alike = statement.condition in conditions and statement.resources != ("*",)
        key = f"{statement.condition} {alike or statement.resources}"
        previous = merged.get(key, replace(statement, actions=(), resources=()))
        joined = (*dict.fromkeys((*previous.actions, *statement.actions)),), (*dict.fromkeys((*previous.resources, *statement.resources)),)
        merged[key] = replace(previous, actions=joined[0], resources=joined[1])
    return list(merged.values())


def document(statements: list[Statement]) -> dict:
    """The policy, ready for IAM; where names in the account are so long that it takes no more, without the names of its lines."""
    lines = [statement.as_dict() for statement in statements]
    policy = {"Version": "2012-10-17", "Statement": lines}
    if size(policy) > MANAGED:
        policy["Statement"] = [{key: value for key, value in statement.items() if key != "Sid"} for statement in lines]
    return policy


def size(policy: dict) -> int:
    """Characters as IAM counts them: white space is none."""
    return len(re.sub(r"\s", "", json.dumps(policy)))


def line(statement: Statement, actions: list[str]) -> str:
    """The statement with these actions only, on one line to be pasted."""
    return json.dumps(statement.as_dict() | {"Action": actions})
