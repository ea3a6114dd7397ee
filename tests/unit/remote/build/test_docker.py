"""The docker of this machine: what is passed to it, and what is said where there is none."""

import pytest

from conf import load
from conf.problem import Problem
from remote.build import context, docker, ecr

DOCKER = """#!/bin/sh
echo "$@" >>"$0.words"
case $1 in build) cat >"$0.stdin" ;; esac
[ ! -e "$0.fails" ] || { echo "some layer"; echo "no space left on device" >&2; exit 1; }
"""


@pytest.fixture
def fake_docker(tmp_path, monkeypatch):
    """A docker that writes down what it is asked."""
    path = tmp_path / "bin/docker"
    path.parent.mkdir()
    path.write_text(DOCKER)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    return path


@pytest.fixture
def tree(tmp_path):
    made = tmp_path / "tree"
    for name, text in {
        "docker/Dockerfile": "ARG BASE=a\nFROM ${BASE}\n",
        ".dockerignore": "*\n!app\n",
        "app/hello.py": "",
        "secret": "",
    }.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    return made


def run(*words):
    return load.load(["cloud=twin", *words])


def test_the_very_bytes_that_the_box_would_get_are_built_under_the_same_tag(fake_docker, tree):
    made = docker.build(None, run("cloud.build_args={BASE: b}"), tree)
    words = (fake_docker.parent / "docker.words").read_text()
    assert (fake_docker.parent / "docker.stdin").read_bytes() == context.tarball(tree)
    assert made == docker.Built(ecr.tag(tree, {"BASE": "b"}), f"fine-tune-slm:{ecr.tag(tree, {'BASE': 'b'})}")
    assert f"--tag {made.local}" in words and "--build-arg=BASE=b" in words
    assert f"--label=fine-tune-slm.content={made.tag}" in words and "--label=org.opencontainers.image.revision=unknown" in words


def test_without_docker_the_box_is_named_that_builds_it(tree, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Problem, match="there is no docker on this machine") as caught:
        docker.build(None, run(), tree)
    assert "`inv deploy`" in caught.value.hint


def test_what_docker_says_last_is_said(fake_docker):
    (fake_docker.parent / "docker.fails").touch()
    with pytest.raises(Problem, match="`docker push` failed on this machine: no space left on device"):
        docker.docker("push", "x")


def test_a_tag_that_ecr_has_is_not_pushed_again(aws, fake_docker, tree):
    import os
    from pathlib import Path

    from twin import world

    digest = world.register_image(Path(os.environ["AWS_CONFIG_FILE"]).parent, aws.cloud.repository, ecr.tag(tree), ["/bin/true"], tree, {})
    assert docker.push(aws, "here", ecr.tag(tree)).image.endswith(digest)
    assert not (fake_docker.parent / "docker.words").exists()


def test_a_tag_that_ecr_lacks_is_pushed_with_the_login_that_ecr_hands_out(aws, tree, monkeypatch):
    from pathlib import Path

    from twin import world

    asked = []

    def fake_docker(*words, stdin=None):
        asked.append((words, stdin))
        if words[0] == "push":
            world.register_image(Path(aws.cloud.state), aws.cloud.repository, "new", ["/bin/true"], tree, {})

    monkeypatch.setattr(docker, "docker", fake_docker)
    name, _, digest = docker.push(aws, "here", "new").image.partition("@")
    (login, password), *rest = asked
    assert login == ("login", "--username", "AWS", "--password-stdin", name.partition("/")[0]) and password
    assert [words for words, _ in rest] == [("tag", "here", f"{name}:new"), ("push", "--quiet", f"{name}:new")]
    assert digest.startswith("sha256:")
