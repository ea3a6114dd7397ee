"""Lifecycle policies of ECR, held to the examples of AWS's own page, and what a repository keeps of builds that come as an index.

https://docs.aws.amazon.com/AmazonECR/latest/userguide/lifecycle_policy_examples.html
"""

import json

import pytest

from twin import world
from twin.aws.services import ecr_lifecycle
from twin.aws.services.ecr_lifecycle import DAY, Image

NOW = 100 * DAY


def image(name: str, *tags: str, days: float, children: tuple[str, ...] = ()) -> Image:
    return Image(name, tags, NOW - days * DAY, children)


def rules(*selections: dict) -> str:
    numbered = enumerate(selections, 1)
    return json.dumps({"rules": [{"rulePriority": n, "selection": one, "action": {"type": "expire"}} for n, one in numbered]})


def tagged(*patterns: str, **more) -> dict:
    return {"tagStatus": "tagged", "tagPatternList": list(patterns), "countType": "imageCountMoreThan", "countNumber": 1} | more


AGE = {"countType": "sinceImagePushed", "countUnit": "days"}
BETA_AND_PROD = [image("A", "beta-1", "prod-1", days=10), image("B", "beta-2", "prod-2", days=9), image("C", "beta-3", days=8)]
ALPHA_AND_BETA = [
    image("A", "alpha-1", days=12),
    image("B", "beta-1", days=11),
    image("C", "alpha-2", "beta-2", days=10),
    image("D", "alpha-3", days=4),
    image("E", "beta-3", days=3),
    image("F", "alpha-4", "beta-4", days=2),
]


@pytest.mark.parametrize(
    ("policy", "images", "expired"),
    [
        (rules(tagged("prod*"), tagged("beta*")), BETA_AND_PROD, {"A"}),
        (rules(tagged("beta*"), tagged("prod*")), BETA_AND_PROD, {"A", "B"}),
        (rules(tagged("alpha*", "beta*", **AGE, countNumber=5)), ALPHA_AND_BETA, {"C"}),
        (rules(tagged("alpha*", "beta*")), ALPHA_AND_BETA, {"C"}),
        (
            rules({"tagStatus": "tagged", "tagPrefixList": ["alpha"], "countType": "imageCountMoreThan", "countNumber": 3}),
            ALPHA_AND_BETA,
            {"A"},
        ),
        (rules({"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 4}), ALPHA_AND_BETA, {"A", "B"}),
        (
            rules({"tagStatus": "untagged", **AGE, "countNumber": 14}),
            [image("A", days=15), image("B", "x", days=15), image("C", days=13)],
            {"A"},
        ),
    ],
)
def test_the_examples_of_aws_s_page(policy, images, expired):
    assert ecr_lifecycle.expired(policy, images, NOW) == expired


def test_what_an_index_is_made_of_is_neither_counted_nor_expired_until_the_index_is_gone():
    index, parts = image("I", "tag", days=5, children=("I1", "I2")), [image("I1", days=5), image("I2", days=5)]
    every = rules({"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 2})
    assert ecr_lifecycle.expired(every, [*parts, index, image("J", "other", days=1)], NOW) == set()
    old = rules({"tagStatus": "untagged", **AGE, "countNumber": 1})
    assert ecr_lifecycle.expired(old, [*parts, index], NOW) == set()
    assert ecr_lifecycle.expired(old, parts, NOW) == {"I1", "I2"}


BUILD = "tar -c -C {0} Dockerfile | {1} docker build --label 'of={3}' --tag '{2}:{3}' - && docker push --quiet '{2}:{3}'"


@pytest.fixture(scope="module")
def repository(box):
    """An empty repository that the box has logged in to."""
    uri = box.cloud.ecr.create_repository(repositoryName="built")["repository"]["repositoryUri"]
    (box.root / "root/Dockerfile").write_text('FROM scratch\nCOPY Dockerfile /\nENTRYPOINT ["/bin/true"]\n')
    login = f"aws ecr get-login-password | docker login --username AWS --password-stdin '{uri.partition('/')[0]}'"
    assert box.shell(login).returncode == 0
    return uri


def kinds(box) -> dict[str, list[str]]:
    """The tags of each image of the repository, by the last part of its manifest's media type."""
    by_kind: dict[str, list[str]] = {}
    for one in box.cloud.ecr.describe_images(repositoryName="built")["imageDetails"]:
        asked = box.cloud.ecr.batch_get_image(repositoryName="built", imageIds=[{"imageDigest": one["imageDigest"]}])
        media_type = json.loads(asked["images"][0]["imageManifest"])["mediaType"]
        by_kind.setdefault(media_type.split(".")[-2], []).extend(one.get("imageTags", ["none"]))
    return by_kind


def test_what_docker_builds_comes_as_an_index_unless_it_is_told_to_leave_the_provenance_out(box, repository):
    plain = box.shell(BUILD.format("root", "BUILDX_NO_DEFAULT_ATTESTATIONS=1", repository, "plain"))
    assert plain.returncode == 0, plain.stderr
    assert kinds(box) == {"manifest": ["plain"]}
    attested = box.shell(BUILD.format("root", "", repository, "attested"))
    assert attested.returncode == 0, attested.stderr
    assert kinds(box) == {"manifest": ["plain", "none", "none"], "index": ["attested"]}
    again = box.cloud.box()
    login = f"aws ecr get-login-password | docker login --username AWS --password-stdin '{repository.partition('/')[0]}'"
    pulled = again.shell(f"{login} && docker pull '{repository}:attested' && docker run --rm '{repository}:attested'")
    assert pulled.returncode == 0, pulled.stderr
    box.cloud.ec2.terminate_instances(InstanceIds=[again.instance])


def test_a_policy_is_carried_out_within_a_day(box, repository):
    policy = rules(tagged("*", countNumber=1), {"tagStatus": "untagged", **AGE, "countNumber": 1})
    box.cloud.ecr.put_lifecycle_policy(repositoryName="built", lifecyclePolicyText=policy)
    world.forward(box.cloud.state, DAY + 60)
    assert kinds(box)["index"] == ["attested"] and "plain" not in kinds(box)["manifest"]
    box.cloud.ecr.batch_delete_image(repositoryName="built", imageIds=[{"imageTag": "attested"}])
    box.cloud.ecr.put_lifecycle_policy(repositoryName="built", lifecyclePolicyText=policy)
    world.forward(box.cloud.state, DAY + 60)
    assert kinds(box) == {}
