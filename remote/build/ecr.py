"""The trainer's image, named by the hash of all that goes into it. The only file with boto3's ecr."""

import secrets
import tempfile
from pathlib import Path

from conf.problem import Problem
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.build import context, git

DIGEST = "ecr/image-digest"  # in Parameter Store: which image was pushed last, for people and other tools


def tag(root: Path, arguments: dict[str, str] | None = None) -> str:
    """The content hash of this tree's image: 16 hex digits."""
    return context.tag(root, arguments or {})


def find(aws: Aws, tag: str) -> dict:
    """Find the image of this tree in ECR."""
    registry, digest = look(aws, tag)
    if digest is None:
        raise Problem(
            f"ECR repository `{aws.cloud.repository}` has no image of this tree (tag {tag})",
            "`inv deploy` makes it ready, and again after each change of the trainer",
            reason="refused",
        )
    return {"image": f"{registry}@{digest}", "image_tag": tag}


def offer(aws: Aws, tag: str, root: Path) -> dict:
    """Find the image of this tree in ECR; where there is none, put what it is made of into S3, for the box to build it."""
    registry, digest = look(aws, tag)
    if digest is not None:
        return {"missing": "no", "image": f"{registry}@{digest}", "image_tag": tag}
    store = Store(aws)
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "context.tar"
        packed.write_bytes(context.tarball(root))
        sha256, _ = store.put_input(packed)
    found = {"missing": "yes", "name": registry, "context": store.url(f"inputs/{sha256}"), "sha256": sha256}
    # Whoever follows a build that somebody else has begun must not take its end for the end of one of their own.
    return found | {"revision": revision(root), "attempt": secrets.token_hex(4)}


def note(aws: Aws, image: str) -> dict:
    """Write the digest of the image down in Parameter Store."""
    aws.client("ssm").put_parameter(Name=aws.cloud.root + DIGEST, Value=image.partition("@")[2], Type="String", Overwrite=True)
    return {}


def describe(aws: Aws, tag: str) -> dict:
    """What ECR says of the image with this tag: its size, and when it was pushed."""
    return aws.client("ecr").describe_images(repositoryName=aws.cloud.repository, imageIds=[{"imageTag": tag}])["imageDetails"][0]


def revision(root: Path) -> str:
    """The commit that the tree is at, as far as it is at one."""
    commit, changed = git.commit(root)
    return f"{commit}{' with changes' if changed else ''}" if commit else "unknown"


def look(aws: Aws, tag: str) -> tuple[str, str | None]:
    """Registry and repository in one word, and the digest of what has the tag there."""
    ecr, name = aws.client("ecr"), aws.cloud.repository
    try:
        registry = ecr.describe_repositories(repositoryNames=[name])["repositories"][0]["repositoryUri"]
        return registry, ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])["imageDetails"][0]["imageDigest"]
    except ecr.exceptions.RepositoryNotFoundException as error:
        raise Problem(f"there is no ECR repository `{name}`", "`inv init` makes it", reason="refused") from error
    except ecr.exceptions.ImageNotFoundException:
        return registry, None
