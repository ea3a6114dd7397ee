"""`inv image.build`, `image.push`, `image.verify`: the image by the docker of this machine; `inv deploy` needs none of them."""

from invoke import task

from conf.cli import rehearsed, settings
from conf.paths import ROOT
from remote.plan.command import perform, planned


@task
def build(c):
    """Build the trainer's image of this tree with the docker of this machine; `inv deploy` needs none."""
    run = settings(c)
    perform(c, run, "image.build", planned().build(run, ROOT), audited=False)


@task
def push(c):
    """Build the image with the docker of this machine, push it to ECR, write its digest down."""
    run = settings(c)
    perform(c, run, "image.push", planned().push(run, ROOT))


@task
def verify(c):
    """Check the image of this tree in ECR: digest, start, labels, size, age. It runs it with the docker of this machine."""
    from remote.aws.session import Aws
    from remote.build import docker

    run = settings(c)
    rehearsed(c, "call   Check the image in ECR, and start it here") or docker.verify(Aws(run.cloud), run, ROOT)
