"""The box builds the image when ECR has none of the tree: once, despite interruptions; only an image that starts is pushed."""

import json
import os
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from conf import load
from conf.problem import Problem
from remote.aws import instance
from remote.build import ecr
from remote.plan import verbs
from remote.plan.answers import Deploy
from remote.plan.perform import perform
from remote.transport.ssm import Ssm
from twin import world
from twin.box import processes

pytestmark = pytest.mark.slow  # each builds an image

DOCKERFILE = """\
ARG BASE=scratch
FROM ${BASE} AS packages
COPY app/needs.txt /build/
RUN --mount=type=tmpfs,target=/var/cache \\
    true
FROM packages
COPY app /app
ENV KEPT=/kept PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
ENTRYPOINT ["python", "-m", "hello"]
"""


@pytest.fixture(scope="module")
def run():
    return load.load(["cloud=twin", "box.gpu=false"], local=Path("none"))


@pytest.fixture(scope="module")
def box(aws, run):
    """A box that is up."""
    return perform(verbs.up(run), aws, Ssm).of(instance.Ensured)


@pytest.fixture
def tree(tmp_path):
    """A program small enough to be built in a second; `--help` runs what stands in it."""
    made = tmp_path / "tree"
    for name, text in {"docker/Dockerfile": DOCKERFILE, ".dockerignore": "*\n!app\n", "app/needs.txt": "", "secret.txt": "mine"}.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    (made / "app/hello.py").write_text(f"# {tmp_path}: no two trees are alike\n")
    yield made
    shutil.rmtree(made)


def deploy(aws, run, tree, transport=Ssm) -> SimpleNamespace:
    outcome = perform(verbs.deploy(run, tree), aws, transport)
    offered, built = outcome.of(ecr.ImageOrContext), outcome.of(ecr.Image)
    return SimpleNamespace(missing=offered.missing, changed=outcome.of(Deploy).changed, image=built.image if built else offered.image)


def state() -> Path:
    return Path(os.environ["AWS_CONFIG_FILE"]).parent


def journal(since: int = 0) -> list[dict]:
    return [json.loads(line) for line in (state() / "journal.jsonl").read_text().splitlines()][since:]


def pushes(calls: list[dict]) -> int:
    return sum(call["service"] == "registry" and call["operation"] == "PUT" and "/manifests/" in call["target"] for call in calls)


def root(box) -> Path:
    return state() / "boxes" / box.instance_id / "root"


def stage(box) -> str:
    """What the build on the box is about."""
    try:
        return (root(box) / "run/fine-tune-slm/image/stage").read_text().strip()
    except FileNotFoundError:
        return ""


def test_it_is_built_pushed_and_found_and_then_never_again(aws, run, box, tree):
    since = len(journal())
    first = deploy(aws, run, tree)
    assert (first.missing, first.changed) == (True, True)
    assert first.image.endswith(ecr.find(aws, ecr.tag(tree)).image.partition("@")[2])
    assert aws.client("ssm").get_parameter(Name=aws.cloud.root + ecr.DIGEST)["Parameter"]["Value"] == first.image.partition("@")[2]
    assert pushes(journal(since)) == 1
    since = len(journal())
    second = deploy(aws, run, tree)
    assert (second.missing, second.changed, second.image) == (False, False, first.image)
    calls = journal(since)
    assert sum(call["operation"] == "SendCommand" for call in calls) == 2
    assert [
        call["target"] for call in calls if call["service"] == "s3" and call["operation"] == "PUT" and "/locks/" not in call["target"]
    ] == []


def test_the_container_runs_what_was_copied_and_nothing_else_and_labels_say_what_that_is(aws, run, box, tree):
    (tree / "app/hello.py").write_text("import os, sys; sys.argv[1:] or print(sorted(os.listdir()), os.environ['KEPT'])")
    made = deploy(aws, run, tree)
    stdout = Ssm(aws, box.instance_id).run(f"docker run --rm {made.image}", 60).stdout
    assert stdout == f"['hello.py', 'needs.txt'] {root(box)}/kept\n"
    stdout = Ssm(aws, box.instance_id).run(f"docker image inspect --format '{{{{json .Config.Labels}}}}' {made.image}", 60).stdout
    assert json.loads(stdout) == {"org.opencontainers.image.revision": "unknown", "fine-tune-slm.content": ecr.tag(tree)}


def test_a_build_that_fails_shows_its_last_words_and_pushes_nothing(aws, run, box, tree, capsys):
    (tree / "docker/Dockerfile").write_text(DOCKERFILE + "COPY nowhere /app/\n")
    with pytest.raises(Problem, match=r"the box could not build the image \(exit code 1\)") as caught:
        deploy(aws, run, tree)
    assert '"/nowhere": not found' in capsys.readouterr().err
    assert "`inv deploy`" in caught.value.hint
    with pytest.raises(Problem, match="has no image of this tree"):
        ecr.find(aws, ecr.tag(tree))


def test_what_does_not_start_is_not_pushed_and_is_tried_again_by_the_next_deploy(aws, run, box, tree, capsys):
    (tree / "app/hello.py").write_text(
        "import os; raise SystemExit(0 if os.path.exists('/proc/self/cwd/../../../mended') else 'no such package')"
    )
    since = len(journal())
    with pytest.raises(Problem, match="the box could not start the image"):
        deploy(aws, run, tree)
    assert "no such package" in capsys.readouterr().err and pushes(journal(since)) == 0
    (root(box) / "var/lib/docker/mended").touch()
    assert deploy(aws, run, tree).changed is True


def test_a_full_disk_is_said_and_what_makes_room(aws, run, box, tree):
    world.fault(state(), "root-full")
    try:
        with pytest.raises(Problem) as caught:
            deploy(aws, run, tree)
    finally:
        (root(box).parent / "faults/root-full").unlink()
    assert caught.value.reason == "disk_full" and "box.root_gb" in caught.value.hint


class Cut(Exception):
    pass


class Lost(Ssm):
    """A laptop that dies as soon as the build was asked for."""

    def run(self, script, timeout, title=""):
        if "build" in title:
            super().run(script.replace("PATIENCE=15", "PATIENCE=1"), timeout, title)
            raise Cut
        return super().run(script, timeout, title)


def test_a_build_goes_on_without_the_deploy_that_started_it_and_the_next_one_follows_it(aws, run, box, tree, capsys):
    """Exactly one build and one push."""
    (tree / "app/hello.py").write_text("import time; time.sleep(2.5)")
    since = len(journal())
    with pytest.raises(Cut):
        deploy(aws, run, tree, Lost)
    made = deploy(aws, run, tree)
    calls = journal(since)
    assert pushes(calls) == 1 and made.missing is True
    assert sum(call["service"] == "registry" and call["operation"] == "POST" for call in calls) == 2  # a layer and a config
    assert sum(call["service"] == "s3" and "/inputs/" in call["target"] and call["operation"] == "PUT" for call in calls) == 1


def test_where_somebody_has_pushed_the_same_content_meanwhile_theirs_is_taken(aws, run, box, tree):
    (tree / "app/hello.py").write_text("import time; time.sleep(1.5)")
    deployed = []
    thread = threading.Thread(target=lambda: deployed.append(deploy(aws, run, tree)))
    thread.start()
    while thread.is_alive() and stage(box) != "start the image":
        time.sleep(0.05)
    theirs = world.register_image(state(), aws.cloud.repository, ecr.tag(tree), ["/bin/true"], tree, {})
    thread.join()
    assert deployed[0].image.endswith(theirs)


def test_a_killed_build_is_told_once_and_then_begun_anew(aws, run, box, tree):
    (tree / "app/hello.py").write_text("import os, time; time.sleep(0 if os.path.exists('/proc/self/cwd/../../../again') else 20)")

    def kill():
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline:
            builders = processes.called(root(box), "/image.sh")
            if builders and stage(box) == "start the image":
                (root(box) / "var/lib/docker/again").touch()
                for one in builders:
                    one.kill()
                return
            time.sleep(0.05)

    killed = threading.Thread(target=kill)
    killed.start()
    with pytest.raises(Problem, match="ended from outside"):
        deploy(aws, run, tree)
    killed.join()
    assert deploy(aws, run, tree).changed is True
