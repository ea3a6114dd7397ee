"""The stand-in docker keeps to docker's exit codes and words, and refuses what it does not emulate."""

import json
import time

import pytest

from twin import world
from twin.box import processes


@pytest.fixture(scope="module")
def image(box):
    """A registered image that is a shell; the box has pulled it."""
    digest = world.register_image(box.cloud.state, "trainer", "v1", ["/bin/sh", "-c"], box.root, {"FROM_IMAGE": "yes"})
    repository = box.cloud.ecr.describe_repositories(repositoryNames=["trainer"])["repositories"][0]["repositoryUri"]
    login = f"aws ecr get-login-password | docker login --username AWS --password-stdin '{repository.partition('/')[0]}'"
    assert box.shell(login).stdout == "Login Succeeded\n"
    assert box.shell(f"docker pull --quiet {repository}@{digest}").stdout == f"{repository}@{digest}\n"
    return f"{repository}@{digest}"


def test_pull_needs_a_login_and_a_digest_that_exists(cloud, image):
    other = cloud.box()
    assert "no basic auth credentials" in other.shell(f"docker pull {image}").stderr
    wrong = other.shell(f"echo wrong | docker login --username AWS --password-stdin {image.partition('/')[0]}")
    assert wrong.returncode == 1 and "401" in wrong.stderr
    login = f"aws ecr get-login-password | docker login --username AWS --password-stdin {image.partition('/')[0]}"
    unknown = other.shell(f"{login} && docker pull {image[:-4]}0000")
    assert unknown.returncode == 1 and "manifest unknown" in unknown.stderr
    assert other.shell(f"docker image inspect {image}").returncode == 1
    assert other.shell(f"docker pull {image} && docker image inspect {image}").returncode == 0


def test_registering_the_same_image_again_changes_nothing(box, image):
    again = world.register_image(box.cloud.state, "trainer", "v1", ["/bin/sh", "-c"], box.root, {"FROM_IMAGE": "yes"})
    assert image.endswith(again)
    tags = [described.get("imageTags") for described in box.cloud.ecr.describe_images(repositoryName="trainer")["imageDetails"]]
    assert tags.count(["v1"]) == 1
    tagged = box.cloud.ecr.batch_get_image(repositoryName="trainer", imageIds=[{"imageTag": "v1"}])["images"][0]
    assert tagged["imageId"]["imageDigest"] == again


def test_run_gives_the_declared_environment_and_nothing_else(box, image):
    script = f"export PASSED=1 MISSING_NOT=1; docker run --rm --env PASSED --env ABSENT --env SET=2 {image} env"
    seen = dict(line.split("=", 1) for line in box.shell(script).stdout.splitlines())
    assert (seen["FROM_IMAGE"], seen["PASSED"], seen["SET"]) == ("yes", "1", "2")
    assert not {"ABSENT", "MISSING_NOT", "AWS_ENDPOINT_URL", "HF_TOKEN", "AWS_ACCESS_KEY_ID"} & set(seen)


def test_detached_container_is_logged_inspected_and_keeps_its_exit_code(box, image, until):
    options = (
        "--gpus all --network host --ipc host --shm-size 1g --restart no --stop-timeout 3 --log-driver json-file --log-opt max-size=1m"
    )
    shell = box.shell(f"docker run --detach --name one --label run=r1 {options} {image} 'echo out; echo err >&2; sleep 2; exit 7'")
    assert shell.returncode == 0 and len(shell.stdout.strip()) == 64
    assert box.shell("docker ps --filter label=run=r1 --format '{{.Names}} {{.State}}'").stdout == "one running\n"
    assert box.shell("docker wait one").stdout == "7\n"
    template = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}"
    assert box.shell(f"docker inspect --format '{template}' one").stdout == "exited 7 false\n"
    assert box.shell("docker logs one").stdout == "out\nerr\n"
    assert [box.shell(f"docker logs --tail {n} one").stdout for n in (1, 5)] == ["err\n", "out\nerr\n"]
    assert box.shell("docker ps --quiet --filter name=^/one$").stdout == ""
    assert len(box.shell("docker ps --all --quiet --filter name=^/one$").stdout) == 13
    assert json.loads(box.shell("docker inspect one").stdout)[0]["Config"]["Labels"] == {"run": "r1"}


def test_a_container_that_is_given_a_gpu_can_show_it(box, image):
    shown = box.shell(f"docker run --rm --gpus all --entrypoint nvidia-smi {image} -L")
    assert shown.stdout.startswith("GPU 0: NVIDIA L4"), shown.stderr
    assert box.shell(f"docker run --rm --entrypoint echo {image} hello").stdout == "hello\n"
    assert box.shell(f"docker run --rm --entrypoint nvidia-smi {image} -L").returncode != 0, "docker gives it to nobody else"


def test_a_container_that_has_ended_starts_again_with_the_command_that_it_was_made_with(box, image):
    box.shell(f"docker run --detach --name twice {image} 'echo once; exit 3'")
    assert box.shell("docker wait twice; docker start twice; docker wait twice").stdout == "3\ntwice\n3\n"
    assert box.shell("docker logs twice").stdout == "once\nonce\n"
    assert box.shell("docker start nobody").returncode == 1


def test_a_name_is_taken_once(box, image):
    first = box.shell(f"docker run --detach --name taken {image} true").stdout.strip()
    second = box.shell(f"docker run --detach --name taken {image} true")
    assert second.returncode == 125
    assert f'The container name "/taken" is already in use by container "{first}"' in second.stderr
    box.shell("docker wait taken")
    assert box.shell("docker rm taken").stdout == "taken\n"
    assert box.shell(f"docker run --detach --name taken {image} true").returncode == 0


def test_stop_terms_then_kills_every_process_of_the_container(box, image):
    box.shell(f"docker run --detach --name polite {image} 'trap \"exit 5\" TERM; while :; do sleep 0.1; done'")
    assert box.shell("docker stop --time 5 polite; docker inspect --format '{{.State.ExitCode}}' polite").stdout == "polite\n5\n"
    before = len(processes.of(box.root))
    box.shell(f"docker run --detach --name stubborn {image} 'trap \"\" TERM; setsid sleep 66.5 & while :; do sleep 0.1; done'")
    begun = time.monotonic()
    assert box.shell("docker stop --time 1 stubborn; docker inspect --format '{{.State.ExitCode}}' stubborn").stdout == "stubborn\n137\n"
    assert time.monotonic() - begun < 4
    assert len(processes.of(box.root)) == before


def test_running_container_is_removed_by_force_only(box, image):
    box.shell(f"docker run --detach --name held {image} 'sleep 67.5'")
    assert "container is running" in box.shell("docker rm held").stderr
    assert box.shell("docker rm --force held").returncode == 0
    gone = box.shell("docker inspect held")
    assert gone.returncode == 1 and "No such object: held" in gone.stderr


def test_follow_shows_what_comes_until_the_end(box, image):
    box.shell(f"docker run --detach --name talker {image} 'for i in 1 2 3; do echo $i; sleep 0.3; done'")
    assert box.shell("docker logs --follow talker").stdout == "1\n2\n3\n"


def test_foreground_run_passes_streams_and_exit_code_and_leaves_nothing(box, image):
    done = box.shell(f"echo typed | docker run --rm --interactive --name brief {image} 'cat; echo err >&2; exit 4'")
    assert (done.returncode, done.stdout, done.stderr) == (4, "typed\n", "err\n")
    assert box.shell("docker inspect brief").returncode == 1


def test_container_survives_the_command_that_started_it_and_its_cancel(box, image, until):
    command = box.send(f"docker run --detach --name alone {image} 'sleep 68.5' && sleep 60")
    until(lambda: "alone" in box.shell("docker ps --format '{{.Names}}'").stdout)
    box.cloud.ssm.cancel_command(CommandId=command)
    box.ended(command)
    assert box.shell("docker inspect --format '{{.State.Status}}' alone").stdout == "running\n"
    box.shell("docker rm --force alone")


def test_a_command_that_does_not_exist_is_127(box):
    digest = world.register_image(box.cloud.state, "trainer", "broken", ["/no/such/program"], box.root, {})
    repository = box.cloud.ecr.describe_repositories(repositoryNames=["trainer"])["repositories"][0]["repositoryUri"]
    done = box.shell(f"docker run --detach --name broken {repository}@{digest}")
    assert done.returncode == 127 and "/no/such/program" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "run --privileged IMAGE",
        "run --gpus 2 IMAGE",
        "run --volume /tmp:/data IMAGE",
        "run --tmpfs /no/such IMAGE",
        "run --restart always IMAGE",
        "run --name ../x IMAGE",
        "run --cpus 2 IMAGE",
        "ps --bogus",
    ],
)
def test_what_is_not_emulated_is_refused_with_dockers_code(box, image, words):
    done = box.shell("docker " + words.replace("IMAGE", image))
    assert done.returncode == 125 and done.stderr


@pytest.mark.parametrize(
    "words", ["cp one:/x .", "build .", "inspect --format '{{range .X}}{{end}}' one", "image rm x", "ps --filter ancestor=x"]
)
def test_other_commands_fail(box, image, words):
    assert box.shell("docker " + words).returncode != 0


def test_starts_fast(box):
    box.shell("docker info")
    spent = min(float(box.shell("TIMEFORMAT=%U; time docker info --format '{{.ServerVersion}}'").stderr.split()[-1]) for _ in range(3))
    assert spent < 0.3
