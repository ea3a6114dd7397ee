"""Where evaluate.sh ends: what stands in its way, rows that are not the ones that were meant, a trainer that fails; and what it keeps."""

import hashlib

import pytest

from tests.unit.remote.scripts.test_script_ends import RUN, Box, refused

ROWS = b'{"prompt": "a", "completion": "b"}\n'
SETTINGS = {"RUN_ID": RUN, "IMAGE": "i", "BUCKET": "b", "PREFIX": "p", "FILE": "my rows.jsonl", "SPLIT": "my rows"}
SETTINGS |= {"MANIFEST": hashlib.sha256(b"{}").hexdigest()}
SETTINGS |= {"ROWS": hashlib.sha256(ROWS).hexdigest(), "HUB_SECRET": "s", "GPU": "no", "SCAFFOLD": "yes", "SCHEMA": "no", "PATIENCE": 1}
AWS = """
echo "$*" >>aws.log
case "$*" in
  secretsmanager*) echo hf_secret ;;
  *inputs/*) cp rows "$5" ;;
esac
"""
# Docker that runs the trainer: `examine.sh` is what it does with the words behind the image, at once, or where `docker/slow` is, never.
DOCKER = """
echo "$*" >>docker.log
case "$*" in
  ps*) cat docker/names 2>/dev/null || true ;;
  run*)
    while [ "$1" != examine ]; do shift; done
    if [ -e docker/slow ]; then echo running >docker/state; echo "scoring tuned 32/500, hf_secret" >docker/said; exit; fi
    (. ./examine.sh) >docker/said 2>&1
    echo $? >docker/code
    echo exited >docker/state ;;
  *State.Status*) cat docker/state 2>/dev/null || exit 1 ;;
  logs*) cat docker/said ;;
  wait*) cat docker/code ;;
  rm*) rm -f docker/state docker/code ;;
esac
"""
SCORED = 'echo "{}" >"$4.json"; echo "{}" >"$4.predictions.jsonl"'


@pytest.fixture
def box(tmp_path):
    made = Box(tmp_path)
    made.tool("aws", AWS)
    made.tool("docker", DOCKER)
    made.put("rows", ROWS.decode())
    made.put("mounted", "")
    made.put(f"mnt/training/runs/{RUN}/manifest.json", "{}")
    made.put("examine.sh", SCORED)
    return made


def log_of(box, name: str) -> str:
    return (box.root / f"{name}.log").read_text()


def started_in(box) -> list[str]:
    return [line for line in log_of(box, "docker").splitlines() if line.startswith("run ")]


def test_the_scores_go_to_s3_behind_the_answers_and_nothing_is_left_on_the_box(box):
    result = box.run("evaluate", **SETTINGS)
    assert (result.code, result.facts) == (0, {"scoring": "no", "changed": "yes"}), result.stderr
    uploaded = [line.split("/")[-1] for line in log_of(box, "aws").splitlines() if f"runs/{RUN}/evaluations/" in line]
    assert uploaded == ["my rows.predictions.jsonl", "my rows.json"]
    (started,) = started_in(box)
    assert started.endswith("/evaluate/in/my rows.jsonl " + f"{box.mount}/evaluate/out/my rows scaffold")
    assert not (box.mount / "evaluate").exists() and not (box.root / "docker/state").exists()


def test_a_second_request_for_the_same_evaluation_follows_the_first(box):
    box.put("docker/slow", "")
    for _ in range(2):
        result = box.run("evaluate", **SETTINGS)
        assert (result.code, result.facts) == (0, {"scoring": "yes"}), result.stderr
        assert "scoring tuned 32/500, *********" in result.stderr and "hf_secret" not in result.stderr
    for ending in ("json", "predictions.jsonl"):
        box.put(f"mnt/training/evaluate/out/my rows.{ending}", "{}")
    box.put("docker/code", "0")
    box.put("docker/state", "exited")
    assert box.run("evaluate", **SETTINGS).facts == {"scoring": "no", "changed": "yes"}
    assert len(started_in(box)) == 1


def test_what_was_begun_for_other_rows_or_broke_off_is_begun_anew(box):
    box.put("docker/slow", "")
    box.run("evaluate", **SETTINGS)
    box.run("evaluate", **SETTINGS | {"SCAFFOLD": "no"})
    (box.root / "docker/state").unlink()
    (box.root / "docker/slow").unlink()
    assert box.run("evaluate", **SETTINGS | {"SCAFFOLD": "no"}).facts == {"scoring": "no", "changed": "yes"}
    assert [line.endswith(" scaffold") for line in started_in(box)] == [True, False, False]


def test_answers_held_to_a_schema_are_asked_for_beside_the_others(box):
    assert box.run("evaluate", **SETTINGS | {"SCHEMA": "yes"}).code == 0
    assert started_in(box)[0].endswith("/out/my rows scaffold schema")


def test_a_box_that_trains_or_has_no_volume_scores_nothing(box):
    box.put("docker/names", "fine-tune-slm-other\n")
    refused(box.run("evaluate", **SETTINGS), "other is training on this box, and needs its memory", "refused")
    (box.root / "mounted").unlink()
    refused(box.run("evaluate", **SETTINGS), "the volume is not mounted", "refused")


def test_other_rows_than_were_meant_are_not_scored(box):
    box.put("rows", "something else\n")
    result = box.run("evaluate", **SETTINGS)
    assert result.code != 0
    assert "evaluations" not in log_of(box, "aws") and "examine" not in log_of(box, "docker")


def test_a_trainer_that_fails_is_quoted_without_the_token(box):
    box.put("examine.sh", 'echo "scoring"; echo "error: out of memory beside hf_secret"; echo; echo "hint: use less"; exit 1')
    result = box.run("evaluate", **SETTINGS)
    refused(result, "out of memory beside *********", "crashed")
    assert result.facts["hint"] == "use less"
    assert "hf_secret" not in result.stdout + result.stderr
    assert "evaluations" not in log_of(box, "aws")


def test_a_trainer_that_ends_without_a_sentence_is_quoted_by_its_last_line(box):
    box.put("examine.sh", 'echo "scoring"; echo "Segmentation fault"; exit 139')
    refused(box.run("evaluate", **SETTINGS), "the trainer could not score the run (exit code 139): Segmentation fault", "crashed")


def test_a_run_that_this_volume_lacks_is_fetched(box):
    (box.mount / f"runs/{RUN}/manifest.json").unlink()
    box.tool("aws", AWS.replace("case", 'case "$*" in *finished.part*) mkdir -p "$6"; printf "{}" >"$6/manifest.json" ;; esac\ncase', 1))
    result = box.run("evaluate", **SETTINGS)
    assert result.code == 0, result.stderr
    assert (box.mount / f"runs/{RUN}/manifest.json").exists() and "--include adapter/*" in log_of(box, "aws")


BOTH = pytest.mark.parametrize(("script", "more"), [("evaluate", {}), ("predict", {"ASKED": "questions/1"})])


@BOTH
def test_a_run_on_the_volume_with_another_manifest_than_the_one_in_s3_answers_nothing_and_stays(box, script, more):
    """A model that somebody has exchanged on the volume answered, and its scores went beside the run."""
    box.put(f"mnt/training/runs/{RUN}/manifest.json", '{"mine": 1}')
    refused(box.run(script, **SETTINGS | more), "on the volume is not the one in S3", "damaged_run")
    assert (box.mount / f"runs/{RUN}/manifest.json").read_text() == '{"mine": 1}' and not started_in(box)


@BOTH
def test_a_run_whose_manifest_in_s3_has_changed_since_the_laptop_read_it_is_not_taken(box, script, more):
    (box.mount / f"runs/{RUN}/manifest.json").unlink()
    changed = 'case "$*" in *finished.part*) mkdir -p "$6"; echo "{ }" >"$6/manifest.json" ;; esac\ncase'
    box.tool("aws", AWS.replace("case", changed, 1))
    refused(box.run(script, **SETTINGS | more), "in S3 has changed since it was read", "damaged_run")
    assert not (box.mount / f"runs/{RUN}/manifest.json").exists() and not started_in(box)


@BOTH
def test_a_docker_that_does_not_answer_is_not_called_an_image_that_is_missing(box, script, more):
    box.tool("docker", "exit 1")
    refused(box.run(script, **SETTINGS | more), "docker on the box does not answer")
