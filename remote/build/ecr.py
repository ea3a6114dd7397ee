"""The trainer's image, named by the hash of all that goes into it. The only file with boto3's ecr."""

import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from conf.problem import Problem
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.build import context, git

DIGEST = "ecr/image-digest"  # in Parameter Store: which image was pushed last, for people and other tools


@dataclass(frozen=True)
class Image:
    image: str  # registry/name@digest


@dataclass(frozen=True)
class ImageOrContext:
    """The image, or where it is missing what a box needs to build it."""

    missing: bool
    image: str | None = None
    name: str | None = None  # registry/repository
    context: str | None = None  # s3://...
    sha256: str | None = None  # of it
    revision: str | None = None
    attempt: str | None = None


def tag(root: Path, arguments: dict[str, str] | None = None) -> str:
    """The content hash of this tree's image: 16 hex digits."""
    return context.tag(root, arguments or {})


def find(aws: Aws, tag: str) -> Image:
    """Find the image of this tree in ECR."""
    registry, digest = find_digest(aws, tag)
    if digest is None:
        raise Problem(
            f"ECR repository `{aws.cloud.repository}` has no image of this tree (tag {tag})",
            "`inv deploy` makes it ready, and again after each change of the trainer",
            reason="refused",
        )
    return Image(f"{registry}@{digest}")


def find_for_fleet(aws: Aws, tag: str) -> Image:
    """Find the image of this tree in ECR, for there is no box that could build it."""
    registry, digest = find_digest(aws, tag)
    if digest is None:
        what = f"ECR repository `{aws.cloud.repository}` has no image of this tree (tag {tag}), and a fleet builds none"
        raise Problem(what, "`inv up deploy down -- fleet=none` once lets the box build it; or `inv image.push`", reason="refused")
    return Image(f"{registry}@{digest}")


def find_or_upload_context(aws: Aws, tag: str, root: Path) -> ImageOrContext:
    """Find the image of this tree in ECR; where there is none, put what it is made of into S3, for the box to build it."""
    registry, digest = find_digest(aws, tag)
    if digest is not None:
        return ImageOrContext(False, f"{registry}@{digest}")
    store = Store(aws)
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "context.tar"
        packed.write_bytes(context.tarball(root))
        sha256, _ = store.put_input(packed)
    return ImageOrContext(
        True,
        name=registry,
        context=store.url(f"inputs/{sha256}"),
        sha256=sha256,
        revision=revision(root),
        # Somebody who follows another's build must not take its end for the end of his own.
        attempt=secrets.token_hex(4),
    )


def record_digest(aws: Aws, image: str) -> None:
    """Write the digest of the image down in Parameter Store."""
    aws.client("ssm").put_parameter(Name=aws.cloud.root + DIGEST, Value=image.partition("@")[2], Type="String", Overwrite=True)


def describe(aws: Aws, tag: str) -> dict:
    """What ECR says of the image with this tag: its size, and when it was pushed."""
    return aws.client("ecr").describe_images(repositoryName=aws.cloud.repository, imageIds=[{"imageTag": tag}])["imageDetails"][0]


def revision(root: Path) -> str:
    """The tree's commit, and whether the tree has changes."""
    commit, changed = git.commit(root)
    return f"{commit}{' with changes' if changed else ''}" if commit else "unknown"


def find_digest(aws: Aws, tag: str) -> tuple[str, str | None]:
    """Registry and repository in one word, and the digest of what has the tag there."""
    ecr, name = aws.client("ecr"), aws.cloud.repository
    try:
        registry = ecr.describe_repositories(repositoryNames=[name])["repositories"][0]["repositoryUri"]
        return registry, ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])["imageDetails"][0]["imageDigest"]
    except ecr.exceptions.RepositoryNotFoundException as error:
        raise Problem(f"there is no ECR repository `{name}`", "`inv init` makes it", reason="refused") from error
    except ecr.exceptions.ImageNotFoundException:
        return registry, None
