"""The trainer's image by the docker of this machine, for those who have one: the same bytes, tag and labels as the box would make."""

import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote.aws.session import Aws
from remote.build import context, ecr

NAME = "fine-tune-slm"  # of what is built here, before it is pushed
REVISION, CONTENT = "org.opencontainers.image.revision", "fine-tune-slm.content"


@dataclass(frozen=True)
class Built:
    tag: str
    local: str  # what the docker of this machine calls it


def build(aws: Aws, run: schema.Run, root: Path) -> Built:
    """Build the image of this tree with the docker of this machine."""
    tag, arguments = ecr.tag(root, run.cloud.build_args), [f"--build-arg={name}={value}" for name, value in run.cloud.build_args.items()]
    labels = [f"--label={REVISION}={ecr.revision(root)}", f"--label={CONTENT}={tag}"]
    words = ["build", "--network", "host", "--file", context.DOCKERFILE, "--tag", f"{NAME}:{tag}", *labels, *arguments, "-"]
    docker(*words, stdin=context.tarball(root), show_progress=True)
    return Built(tag, f"{NAME}:{tag}")


def push(aws: Aws, local: str, tag: str) -> ecr.Image:
    """Push the image to ECR, unless its tag is there: then it is the same content."""
    registry, digest = ecr.find_digest(aws, tag)
    if digest is None:
        token = aws.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
        user, _, password = base64.b64decode(token).decode().partition(":")
        docker("login", "--username", user, "--password-stdin", registry.partition("/")[0], stdin=password.encode())
        docker("tag", local, f"{registry}:{tag}")
        docker("push", "--quiet", f"{registry}:{tag}")
        digest = ecr.find_digest(aws, tag)[1]
    return ecr.Image(f"{registry}@{digest}")


def verify(aws: Aws, run: schema.Run, root: Path) -> None:
    """Check that ECR has the image of this tree, that it is the recorded one, starts, and says what it is made of."""
    tag = ecr.tag(root, run.cloud.build_args)
    image = ecr.find(aws, tag).image
    description = ecr.describe(aws, tag)
    started = docker("run", "--rm", "--network", "none", "--cap-drop", "ALL", image, "trainer", "--help", check=False)
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", image).stdout) or {}
    recorded, digest = run.cloud.image_digest, image.partition("@")[2]
    pushed = description["imagePushedAt"].astimezone(UTC)
    findings = [
        (
            recorded == digest,
            f"digest    {digest}" + ("" if recorded == digest else f"; Parameter Store's {run.cloud.root}{ecr.DIGEST} has {recorded}"),
        ),
        (started.returncode == 0, f"start     `python -m trainer --help` {'works' if not started.returncode else last_line(started)}"),
        (labels.get(CONTENT) == tag, f"content   {labels.get(CONTENT, 'no label')}; this tree is {tag}"),
        (REVISION in labels, f"revision  {labels.get(REVISION, 'no label')}; this tree is at {ecr.revision(root)}"),
    ]
    screen.print("\n".join(f"{'ok   ' if right else 'WRONG'} {words}" for right, words in findings))
    screen.print(f"      size      {description['imageSizeInBytes'] / 1e9:.2f} GB, compressed")
    screen.print(
        f"      age       pushed {pushed:%Y-%m-%d %H:%M} UTC, {(datetime.now(UTC) - pushed).days} days ago; its content is this tree's"
    )
    if wrong := [words.split()[0] for right, words in findings if not right]:
        hint = "`inv image.push` writes the digest down; another image is made by a change of the tree, since a tag cannot be moved"
        raise Problem(f"the image is not what it should be: {', '.join(wrong)}", hint, reason="refused")


def docker(*words: str, stdin: bytes = b"", check: bool = True, show_progress: bool = False) -> subprocess.CompletedProcess:
    """What the docker of this machine says; `shown` leaves its progress on the screen."""
    program = shutil.which("docker")
    if program is None:
        raise Problem(
            "there is no docker on this machine", "`inv deploy` has the box build the image: it needs none here", reason="refused"
        )
    # Debian's client still takes the older builder, which knows no `RUN --mount`. And an image without its provenance is one manifest.
    environment = os.environ | {"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    done = subprocess.run(
        [program, *words], input=stdin, env=environment, stdout=subprocess.PIPE, stderr=None if show_progress else subprocess.PIPE
    )
    if check and done.returncode:
        hint = "`docker info` and `docker buildx version` must both answer; without them `inv deploy` has the box build the image"
        raise Problem(f"`docker {words[0]}` failed on this machine: {last_line(done)}", hint, reason="crashed")
    return done


def last_line(done: subprocess.CompletedProcess) -> str:
    lines = [line for line in (done.stdout + (done.stderr or b"")).decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"
