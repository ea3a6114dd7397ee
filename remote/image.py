"""The trainer's image, named by the hash of all that goes into it. The only file with boto3's ecr."""

import hashlib
from pathlib import Path

from conf.problem import Problem
from remote.aws import Aws

# What the image is made of; everything else in the tree may change without a new image.
INGREDIENTS = ("trainer", "conf", "data", "docker")
KINDS = {".py", ".yaml", ".txt", ".j2", ".css", ".json", ""}
# The user's own settings and the rows travel otherwise.
LEFT_OUT = {"local.yaml", "mine.yaml"}


def tag(root: Path) -> str:
    """The content hash of this tree's image: 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(path for name in INGREDIENTS for path in (root / name).rglob("*")):
        if path.is_file() and path.suffix in KINDS and "__pycache__" not in path.parts and path.name not in LEFT_OUT:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]


def find(aws: Aws, tag: str) -> dict:
    """Find the image of this tree in ECR."""
    ecr = aws.client("ecr")
    name = aws.cloud.repository
    hint = "`inv deploy` makes it ready, and again after each change of the trainer"
    try:
        registry = ecr.describe_repositories(repositoryNames=[name])["repositories"][0]["repositoryUri"]
        digest = ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])["imageDetails"][0]["imageDigest"]
    except ecr.exceptions.RepositoryNotFoundException as error:
        raise Problem(
            f"there is no ECR repository `{name}`", f"`aws ecr create-repository --repository-name {name}`", reason="refused"
        ) from error
    except ecr.exceptions.ImageNotFoundException as error:
        raise Problem(f"ECR repository `{name}` has no image of this tree (tag {tag})", hint, reason="refused") from error
    return {"image": f"{registry}@{digest}", "image_tag": tag}
