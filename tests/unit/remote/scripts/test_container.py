"""What a container can make of its own folder, and what root on the box then does with it: nothing outside is read, written or waited for.

The scripts are the real ones; each plants what a hostile trainer could, and looks at what came to S3 and what became of a file beside.
"""

import os
import subprocess

import pytest
import scripts

from remote.plan.script import body, compose, settings_block
from tests.unit.remote.scripts.test_evaluate_script import AWS as EVALUATED_AWS
from tests.unit.remote.scripts.test_evaluate_script import DOCKER as EVALUATED_DOCKER
from tests.unit.remote.scripts.test_evaluate_script import ROWS, SETTINGS
from tests.unit.remote.scripts.test_script_ends import RUN, Box, train

SECRET = "a line that only root may read\n"
# As `aws s3 cp` does, it follows every link that it meets; what it takes lies in `s3`, each upload in a folder of its own.
S3 = """
case "$*" in *" ls "*) exit ;; *get-secret-value*) echo hf_secret_token; exit ;; esac
for word; do case "$word" in /*) timeout 5 cp -rL "$word" "$(mktemp -d s3/XXXXXX)" ;; esac; done
"""


@pytest.fixture
def box(tmp_path):
    made = Box(tmp_path)
    (made.root / "s3").mkdir()
    made.tool("aws", S3)
    made.secret = made.put("etc/secret", SECRET)
    return made


def sent(box) -> bytes:
    return b"".join(path.read_bytes() for path in (box.root / "s3").rglob("*") if path.is_file() and path.stat().st_size < 10**8)


def unharmed(box) -> None:
    assert box.secret.read_text() == SECRET and SECRET.encode() not in sent(box)


def in_place_of(path, kind: str, target) -> None:
    """What stands there now is no file of its own."""
    path.unlink(missing_ok=True)
    {"link": lambda: path.symlink_to(target), "hard link": lambda: path.hardlink_to(target), "pipe": lambda: os.mkfifo(path)}[kind]()


KINDS = ("link", "hard link", "pipe")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["log.txt", "state.json", "state.part", "events.jsonl"])
def test_a_run_that_crashed_leaves_no_way_out_of_its_folder(box, kind, name):
    folder = box.going_on(exit="1")
    in_place_of(folder / name, kind, box.secret)
    box.supervise()
    unharmed(box)
    assert box.run_state()["phase"] == "failed"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["log.txt", "state.json", "events.jsonl"])
def test_nor_does_a_run_that_goes_on(box, kind, name):
    folder = box.going_on(state="running", exit="1")
    in_place_of(folder / name, kind, box.secret)
    box.tool("docker", (box.root / "bin/docker").read_text().partition("\n\n")[2].replace("rm -f docker/state; exit 125", "exit 0"))
    box.supervise(idle=60, life=2)
    unharmed(box)


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_is_not_delivered_with_what_leads_elsewhere(box, kind):
    folder = box.going_on(phase="uploading")
    (folder / "adapter").mkdir()
    in_place_of(folder / "adapter/weights", kind, box.secret)
    box.supervise()
    unharmed(box)
    assert (box.run_state()["phase"], box.run_state()["reason"]) == ("failed", "damaged_run")


def test_nor_with_a_folder_that_is_a_link(box):
    folder = box.going_on(phase="uploading")
    (folder / "adapter").symlink_to(box.secret.parent)
    box.supervise()
    unharmed(box)
    assert box.run_state()["reason"] == "damaged_run"


def test_nor_when_it_claims_more_than_its_disk_has(box):
    folder = box.going_on(phase="uploading")
    with (folder / "weights").open("wb") as file:
        file.truncate(1 << 43)
    box.supervise()
    assert box.run_state()["reason"] == "damaged_run" and b"".join(box.root.glob("s3/*/weights")) == b""


def test_nor_with_a_great_many_files_or_names_that_are_none(box):
    folder = box.going_on(phase="uploading")
    (folder / "many").mkdir()
    for number in range(10_001):
        (folder / f"many/{number}").touch()
    box.supervise()
    assert box.run_state()["reason"] == "damaged_run"


def test_nor_with_names_that_no_terminal_should_show(box):
    folder = box.going_on(phase="uploading")
    (folder / "a\x1b[2J\nb").touch()
    box.supervise()
    assert box.run_state()["reason"] == "damaged_run"


def test_a_run_of_files_and_folders_is_delivered_whole_and_its_manifest_last(box):
    folder = box.going_on(phase="uploading")
    (folder / "adapter/more").mkdir(parents=True)
    (folder / "adapter/more/weights file").write_text("w")
    box.tool("aws", 'echo "$*" >>aws.log\n' + S3)
    box.supervise()
    assert box.run_state()["phase"] == "done"
    assert [path.read_text() for path in (box.root / "s3").rglob("weights file")] == ["w"]
    uploads = [line for line in (box.root / "aws.log").read_text().splitlines() if " cp " in line]
    whole = next(number for number, line in enumerate(uploads) if "--exclude manifest.json" in line)
    assert "manifest.json s3://" in uploads[whole + 1] and not (box.mount / "outbox").exists()


@pytest.mark.parametrize("kind", [*KINDS, "folder"])
def test_a_checkpoint_with_a_link_in_it_stays_on_the_volume(box, kind):
    folder = box.going_on(state="running", exit="1")
    for step in ("step-000004", "step-000008"):
        (folder / "checkpoints" / step).mkdir(parents=True)
        (folder / "checkpoints" / step / "COMPLETE").write_text("{}")
    if kind == "folder":
        (folder / "checkpoints/step-000012").symlink_to(box.secret.parent)
        (box.secret.parent / "COMPLETE").write_text("{}")
    else:
        in_place_of(folder / "checkpoints/step-000004/weights", kind, box.secret)
    box.supervise()
    unharmed(box)
    names = {path.name for path in (box.root / "s3").rglob("step-*")}
    assert "step-000008" in names and "step-000012" not in names and ("step-000004" in names) == (kind == "folder")


def test_a_log_that_claims_to_be_endless_is_shipped_in_chunks_as_far_as_one_goes(box):
    folder = box.going_on(state="running", exit="1")
    with (folder / "log.txt").open("ab") as file:
        file.truncate(1 << 42)
    box.tool("aws", 'case "$*" in *outbox*) stat -c %s run/fine-tune-slm/outbox/log/* >>chunks ;; esac')
    small = body("ship").replace("MOST_LOG=1073741824", "MOST_LOG=100000").replace("MOST_CHUNK=67108864", "MOST_CHUNK=40000")
    assert "MOST_LOG=100000" in small and "MOST_CHUNK=40000" in small
    watched(box, small)
    chunks = [int(size) for size in (box.root / "chunks").read_text().split()]
    assert sum(chunks) == 100_000 and max(chunks) == 40_000
    assert (box.mount / f"shipped/{RUN}").read_text() == "100000\n"


def watched(box, ship: str) -> None:
    """The supervisor with other limits, until it has stopped the box."""
    watch = {"BUCKET": "b", "PREFIX": "p", "LOG_GROUP": "/g", "STREAM_PREFIX": "s", "HUB_SECRET": "hub", "TOKEN_AGE": 0, "PERIOD": 1}
    watch |= {"NOTIFY_ON": "", "TOPIC": "", "WEBHOOK_SECRET": "", "BOX_NAME": "mine"}
    watch |= {"IDLE": 4, "LIFE": 3600, "GPU": "yes", "REGION": "r", "MOUNT_PATH": "/mnt/training"}
    path = box.root / "opt/fine-tune-slm/supervise.sh"
    path.write_text(compose("supervise", watch).replace(body("ship"), ship))
    assert scripts.run_file(path, box.root, 60).code == -9


def test_what_is_swapped_meanwhile_does_not_lead_root_out_either(box):
    """A folder that is a folder in one moment and a link in the next."""
    folder = box.going_on()
    for place in ("a", "b"):
        (folder / "checkpoints" / place).mkdir(parents=True)
        (folder / "checkpoints" / place / "secret").write_text("mine")
    swap = f'while :; do ln -sfn "{box.secret.parent}" c; mv -T c step; mv -T step d; mv a step; mv step a; rm d; done'
    mischief = subprocess.Popen(["bash", "-c", swap], cwd=folder / "checkpoints", stderr=subprocess.DEVNULL)
    settings = {"REGION": "r", "MOUNT_PATH": "/mnt/training", "RUN": RUN}
    settings |= dict.fromkeys(("BUCKET", "PREFIX", "LOG_GROUP", "STREAM_PREFIX", "HUB_SECRET", "TOKEN_AGE"), "x")
    text = settings_block(settings) + body("lib") + body("container") + body("ship")
    text += (
        'trap - ERR\nrun="$MOUNT/runs/$RUN"\nfor try in {1..60}; do link_out "$MOUNT/outbox/$try" -path "./checkpoints/*" || true; done\n'
    )
    try:
        assert scripts.run(text, box.root).code == 0
    finally:
        mischief.kill()
        mischief.wait()
    linked = [path for path in (box.mount / "outbox").rglob("*") if path.is_file() or path.is_symlink()]
    assert linked and not any(path.is_symlink() or path.samefile(box.secret) for path in linked)


def test_a_token_in_the_log_leaves_neither_the_box_nor_the_log(box):
    folder = box.going_on(exit="1")
    box.put("run/fine-tune-slm/hub-tokens", "hf_secret\nhf_secret_token\n")
    (folder / "log.txt").write_text("a hf_secret_token b\nhf_secret\n")
    box.supervise()
    assert (folder / "log.txt").read_text().startswith("a *************** b\n*********\n")
    assert b"hf_secret" not in sent(box)


def test_nor_in_what_the_state_says_of_the_end(box):
    folder = box.going_on(exit="1")
    box.put("run/fine-tune-slm/hub-tokens", "hf_secret_token\n")
    (folder / "log.txt").write_text("one\n")
    box.tool(
        "docker", (box.root / "bin/docker").read_text().partition("\n\n")[2].replace("the last words of the container", "hf_secret_token")
    )
    box.supervise()
    assert box.run_state()["evidence"] == "***************" and b"hf_secret" not in sent(box)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_taken_up_again_does_not_lead_root_out(box, kind):
    folder = box.going_on(phase="failed")
    for name in ("state.json", "state.part"):
        in_place_of(folder / name, kind, box.secret)
    box.tool("docker", 'case "$1 $*" in inspect*) exit 1 ;; esac')
    train(box)
    unharmed(box)
    assert box.run_state()["phase"] == "starting"


def test_an_input_that_is_a_link_is_not_given_to_a_run(box):
    box.going_on(phase="failed")
    (box.mount / "inputs").mkdir()
    (box.mount / "inputs/abc").symlink_to(box.secret)
    box.secret.chmod(0o600)
    assert train(box, INPUTS="abc").code != 0
    assert box.secret.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_s_scores_are_files(box, kind):
    box.tool("aws", EVALUATED_AWS + 'for word; do case "$word" in /*out/*|/*/evaluate/my*) cat "$word" >>s3/all ;; esac; done')
    box.tool("docker", EVALUATED_DOCKER)
    box.put("rows", ROWS.decode())
    box.put("mounted", "")
    box.put(f"mnt/training/runs/{RUN}/manifest.json", "{}")
    ways = {"link": "ln -s", "hard link": "ln", "pipe": "mkfifo"}
    planted = f'{ways[kind]} {"" if kind == "pipe" else box.secret} "$4.json"'
    box.put("examine.sh", f'echo "{{}}" >"$4.predictions.jsonl"; {planted}')
    assert box.run("evaluate", **SETTINGS).code != 0
    unharmed(box)


def test_an_end_that_is_asked_for_does_not_wait_for_a_pipe(box):
    folder = box.going_on(phase="cancelled")
    (box.mount / "current").unlink()
    in_place_of(folder / "state.json", "pipe", None)
    assert box.run("cancel").code == 1


def test_a_volume_of_before_is_handed_over_once_and_only_what_is_its_own(box):
    """A second name of a file may be one of root's; and a link is not followed."""
    folder = box.going_on()
    (folder / "link").symlink_to(box.secret)
    (folder / "hard").hardlink_to(box.secret)
    settings = settings_block({"REGION": "r", "MOUNT_PATH": "/mnt/training", "RUN": RUN})
    assert scripts.run(settings + body("lib") + body("container") + 'hand_over "$MOUNT/runs/$RUN"\n', box.root).code == 0
    owned = (box.root / "chown.log").read_text()
    assert owned.startswith("-h 10001:10001 ") and owned.rstrip().endswith(f"/runs/{RUN}")
    assert f"{RUN}/log.txt" in owned and "/hard" not in owned and "secret" not in owned


def test_what_names_the_current_run_names_a_run(box):
    box.going_on(exit="1")
    box.put("mnt/training/current", "../../../etc\n")
    box.supervise()
    assert not (box.mount / "current").exists() and not list((box.root / "etc").glob("state*"))
