"""Where serve.sh ends: a model that answers, one that still loads, one that cannot be loaded, a box that has something else to do."""

import hashlib

import pytest

from tests.unit.remote.scripts.test_script_ends import RUN, Box, refused

SETTINGS = {"RUN_ID": RUN, "IMAGE": "i", "BUCKET": "b", "PREFIX": "p", "MANIFEST": hashlib.sha256(b"{}").hexdigest()}
SETTINGS |= {"HUB_SECRET": "s", "GPU": "no", "UNASKED": 300, "PATIENCE": 1}
# Docker that starts the trainer: what `docker/says` holds is its log, and it runs on unless `docker/ends` is there.
DOCKER = """
echo "$*" >>docker.log
case "$*" in
  ps*) cat docker/names 2>/dev/null || true ;;
  run*) if [ -e docker/ends ]; then echo exited; else echo running; fi >docker/state ;;
  *State.Status*) cat docker/state 2>/dev/null || exit 1 ;;
  *Networks*) echo '{"fine-tune-slm":{"IPAMConfig":null,"Gateway":"172.18.0.1","IPAddress":"172.18.0.2","IPPrefixLen":16}}' ;;
  logs*) cat docker/says ;;
  rm*) rm -f docker/state ;;
esac
"""
ANSWERS = "loading\nhttp://0.0.0.0:40123/v1 answers as `tuned` and `base`, without a key\nhttp://0.0.0.0:40123/ is a page to try them on\n"


@pytest.fixture
def box(tmp_path):
    made = Box(tmp_path)
    made.tool("aws", 'case "$*" in secretsmanager*) echo hf_secret ;; esac')
    made.tool("docker", DOCKER)
    made.put("mounted", "")
    made.put(f"mnt/training/runs/{RUN}/manifest.json", "{}")
    made.put("docker/says", ANSWERS)
    return made


def started_in(box) -> list[str]:
    return [line for line in (box.root / "docker.log").read_text().splitlines() if line.startswith("run ")]


def test_a_model_answers_where_docker_has_put_it_on_the_port_that_it_says(box):
    for _ in range(2):  # the second time it is there
        result = box.run("serve", **SETTINGS)
        assert result.code == 0, result.stderr
        assert result.facts == {"loading": "no", "address": "172.18.0.2", "port": "40123", "changed": "yes"}
    (started,) = started_in(box)
    assert started.endswith(f"trainer serve {box.mount}/runs/{RUN} 0 300")
    assert "--publish" not in started and "--network host" not in started


def test_a_model_that_loads_is_waited_for_without_its_secrets(box):
    box.put("docker/says", "loading 3/9, hf_secret\n")
    result = box.run("serve", **SETTINGS)
    assert (result.code, result.facts) == (0, {"loading": "yes"}), result.stderr
    assert "loading 3/9, *********" in result.stderr and "hf_secret" not in result.stderr


@pytest.mark.parametrize("said", ["http://0.0.0.0:1;id/v1 answers", "http://0.0.0.0:999999/v1 answers", "x http://0.0.0.0:80/v1 answers"])
def test_no_more_than_a_number_is_taken_of_the_container_s_word(box, said):
    box.put("docker/says", said + " as one likes\n")
    assert box.run("serve", **SETTINGS).facts == {"loading": "yes"}


def test_another_run_or_one_that_has_ended_is_started_anew(box):
    box.run("serve", **SETTINGS)
    box.run("serve", **SETTINGS | {"IMAGE": "other"})
    (box.root / "docker/state").write_text("exited")
    box.run("serve", **SETTINGS | {"IMAGE": "other"})
    assert len(started_in(box)) == 3


def test_a_model_that_cannot_be_loaded_is_the_trainer_s_own_sentence(box):
    box.put("docker/ends", "")
    box.put("docker/says", "error: out of memory\n\nhint: `quant=nf4`\n")
    refused(box.run("serve", **SETTINGS), "out of memory", "crashed")


def test_a_box_that_trains_or_has_no_volume_lets_no_model_answer(box):
    box.put("docker/names", "fine-tune-slm-other\n")
    refused(box.run("serve", **SETTINGS), "other is training on this box, and needs its memory", "refused")
    (box.root / "mounted").unlink()
    refused(box.run("serve", **SETTINGS), "the volume is not mounted", "refused")
