"""Where the box's scripts end when a tool of theirs fails: docker, the AWS command line, umount, systemd, S3 and the clock.

The scripts are the real ones, in bash, in a root folder of their own; each tool is replaced by a few lines with fixed answers.
"""

import base64
import fcntl
import hashlib
import json
import os
import socket
from pathlib import Path

import pytest
import scripts

from remote.plan.script import body, compose
from remote.transport.transport import Result

RUN = "20261122-000000-tiny-0000"
MINE = "name: mine\n"  # the settings of that run
DOCKER = """
case "$1 $2 $*" in
  info*) [ ! -e docker/dead ] ;;
  *State.Status*) cat docker/state 2>/dev/null || exit 1 ;;
  *State.ExitCode*) cat docker/exit ;;
  *Config.User*) echo 10001:10001 ;;
  *State.OOMKilled*) cat docker/oom 2>/dev/null || echo false ;;
  ps*) cat docker/names 2>/dev/null || true ;;
  logs*) echo "the last words of the container" ;;
  wait*) rm -f docker/state; exit 125 ;;
  stop*) echo exited >docker/state ;;
esac
"""
LOGGED = 'echo "$*" >>aws.log'
# Whose the run is, as S3 says it; the supervisor asks before it sends anything.
WHOSE = '[ "$1" != --cli-connect-timeout ] || shift 2; case "$*" in *box.json*) cat claim 2>/dev/null || exit 1; exit ;; esac'
# Sleeping costs no time here; the supervisor, which never ends by itself, ends with its last sleep.
SLEEP = 'if [ "$1" = 60 ]; then kill -KILL $PPID; fi'
# Each read of the seconds since the start of the machine moves them on by one.
TICKING = """
[ "$*" = "-d . -f 1 /proc/uptime" ] || exec /usr/bin/cut "$@"
ticks=$(($(cat ticks) + 1)); echo $ticks | tee ticks
"""


class Box:
    def __init__(self, root: Path):
        self.root, self.mount, self.state = root, root / "mnt/training", root / "run/fine-tune-slm"
        for folder in ("bin", "docker", "opt/fine-tune-slm", "var/log", "etc/systemd/system"):
            (root / folder).mkdir(parents=True)
        self.state.mkdir(parents=True)
        self.tool("docker", DOCKER)
        self.tool("sleep", SLEEP)
        self.tool("cut", TICKING)
        self.put("ticks", "1000")
        self.tool("aws", LOGGED)
        self.tool("mountpoint", "[ -e mounted ]")
        self.tool("umount", "rm mounted")
        self.tool("curl", "exit 7")
        self.tool("shutdown", 'echo "$*" >>shutdown.log')
        self.tool("nvidia-smi", "echo 93")
        self.tool("chown", 'echo "$*" >>chown.log')
        self.tool("nice", 'shift 2; exec "$@"')
        self.put("opt/fine-tune-slm/supervise.sh", "#!/bin/sh\n").chmod(0o755)
        self.put("opt/fine-tune-slm/instance", "i-1\n")
        self.put("claim", '{"name": "me", "instance": "i-1"}')

    def tool(self, name: str, body: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\ncd '{self.root}'\n{WHOSE if name == 'aws' else ''}\n{body}\n")
        path.chmod(0o755)

    def put(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def going_on(self, phase: str = "running", **docker: str) -> Path:
        """A run is the current one on the mounted volume; what docker says of its container."""
        self.put("mounted", "")
        self.put("mnt/training/shipped/.keep", "")
        self.put("mnt/training/current", f"{RUN}\n")
        folder = self.put(f"mnt/training/runs/{RUN}/state.json", json.dumps({"phase": phase})).parent
        (folder / "log.txt").write_text("one\ntwo\n")
        (folder / "config.yaml").write_text(MINE)
        if phase == "uploading":
            (folder / "manifest.json").write_text("{}")
        for name, value in docker.items():
            self.put(f"docker/{name}", f"{value}\n")
        return folder

    def run(self, script: str, **settings) -> Result:
        return scripts.run(
            compose(script, {"REGION": "r", "MOUNT_PATH": "/mnt/training", "LIFE_LEFT": "", "PRICE": ""} | settings), self.root
        )

    def supervise(self, idle: int | None = None, life: int = 3600) -> str:
        """What the supervisor says until it has stopped the box, or would have; with a run it has time to look at that first.

        It reads its clock twice a look, so it takes as many looks, however fast this machine is.
        """
        idle = idle or (8 if (self.mount / "current").exists() else 2)
        watch = {"BUCKET": "b", "PREFIX": "p", "LOG_GROUP": "/g", "STREAM_PREFIX": "s", "HUB_SECRET": "hub", "TOKEN_AGE": 0}
        watch |= {"NOTIFY_ON": "", "TOPIC": "", "WEBHOOK_SECRET": "", "BOX_NAME": "mine"}
        watch |= {"PERIOD": 0.2, "IDLE": idle, "LIFE": life, "GPU": "yes", "REGION": "r", "MOUNT_PATH": "/mnt/training"}
        path = self.root / "opt/fine-tune-slm/supervise.sh"
        path.write_text(compose("supervise", watch))
        result = scripts.run_file(path, self.root)
        assert result.code == -9, result.stderr
        return result.stderr

    @property
    def uptime(self) -> int:
        return int((self.root / "ticks").read_text())

    def run_state(self) -> dict:
        return json.loads((self.mount / f"runs/{RUN}/state.json").read_text())


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


def refused(result: Result, words: str, reason: str = "unreachable") -> None:
    assert (result.code, result.facts["reason"]) == (1, reason), result.stdout + result.stderr
    assert words in result.facts["problem"] and result.facts["hint"]


# Steps


@pytest.mark.parametrize("name", ["a\n@@ mounted=no", "one two", "a\u2028b", "-n", "$(touch RAN)"])
def test_a_folder_that_is_called_like_no_run_is_none_and_states_no_fact(box, name):
    """Whoever was root in a container may have made it: a space named two runs, and a line's end stated what the box says."""
    box.put("mounted", "")
    for kind in ("state", "manifest"):
        box.put(f"mnt/training/runs/{name}/{kind}.json", "{}")
    box.put("docker/dead", "")
    assert box.run("held").facts == {"mounted": "yes", "going": "", "whole": ""}


def test_a_fact_is_one_line_whatever_it_tells(box):
    text = f"REGION=r\nMOUNT_PATH=/mnt/training\n{body('lib')}\nfact gpu $'a\\n@@ changed=yes\\r'\n"
    assert scripts.run(text, box.root).facts == {"gpu": "a @@ changed=yes "}


def test_the_box_tells_what_goes_on_and_what_is_whole(box):
    assert box.run("held").facts == {"mounted": "no"}
    box.put("mounted", "")
    assert box.run("held").facts == {"mounted": "yes", "going": "", "whole": ""}
    box.put("mnt/training/runs/one/state.json", "{}")
    box.put("mnt/training/runs/two/manifest.json", "{}")
    box.put("mnt/training/current", "one\n")
    assert [box.run("held").facts[name].split() for name in ("going", "whole")] == [["one"], ["two"]]
    box.put("docker/dead", "")  # it may well run whatever is on the volume
    assert box.run("held").facts["going"].split() == ["one", "two"]


def setup(box, **settings) -> Result:
    """As it goes on a box whose disk was read before."""
    box.put("opt/fine-tune-slm/warm", "")
    return box.run("setup", **{"INSTANCE": "i-1", "GPU": "no", "SUPERVISOR": "#!/bin/sh", "PATIENCE": 0} | settings)


def at_first_boot(box, **settings) -> Result:
    return box.run("setup", **{"INSTANCE": "i-1", "GPU": "yes", "SUPERVISOR": "#!/bin/sh", "PATIENCE": 1} | settings)


def waited(box, seconds: int) -> None:
    """So long the box has been waited for already."""
    box.put("run/fine-tune-slm/waiting", f"{box.uptime - seconds}\n")


def test_setup_says_that_docker_does_not_answer(box):
    box.put("docker/dead", "")
    assert setup(box).facts == {"warming": "yes"}
    waited(box, 61)
    refused(setup(box), "docker on the box does not answer")


def test_setup_says_that_there_is_no_gpu(box):
    box.tool("nvidia-smi", "exit 9")
    refused(setup(box, GPU="yes"), "shows no GPU", "bad_config")


@pytest.mark.parametrize(
    ("slow", "words"), [("docker", "docker on the box does not answer yet"), ("nvidia-smi", "the driver has not shown")]
)
def test_a_first_boot_is_waited_for_and_said_to_be_slow(box, slow, words):
    """Its disk is read from a snapshot: what takes longer than usual is no fault."""
    box.tool(slow, "exec /bin/sleep 30")
    box.tool("timeout", 'shift; exec /usr/bin/timeout 0.2 "$@"')
    box.tool("sleep", "exec /bin/sleep 0.1")
    for _ in range(2):
        result = at_first_boot(box)
        assert (result.code, result.facts) == (0, {"warming": "yes"}), result.stderr
        assert words in result.stderr and "read from a snapshot at first, which may take minutes" in result.stderr
    assert not (box.root / "opt/fine-tune-slm/warm").exists()
    waited(box, 601)
    refused(
        at_first_boot(box),
        "docker on the box does not answer" if slow == "docker" else "shows no GPU",
        "unreachable" if slow == "docker" else "bad_config",
    )


def test_what_was_slow_at_the_first_boot_is_ready_in_the_end_and_never_waited_for_so_again(box):
    waited(box, 300)
    result = at_first_boot(box)
    assert (result.code, result.facts["warming"], result.facts["gpu"]) == (0, "no", "93"), result.stderr
    assert (box.root / "opt/fine-tune-slm/warm").exists() and not (box.state / "waiting").exists()


def test_a_driver_that_fails_at_the_first_boot_has_a_minute_to_come_up(box):
    box.tool("nvidia-smi", "exit 9")
    assert at_first_boot(box).facts == {"warming": "yes"}
    waited(box, 61)
    refused(at_first_boot(box), "shows no GPU", "bad_config")


def test_setup_calls_off_the_shutdown_that_the_launch_has_planned_once_the_supervisor_is_started(box):
    assert setup(box).code == 0
    assert (box.root / "shutdown.log").read_text() == "-c\n"
    assert (box.state / "supervised").exists()
    box.tool("shutdown", "exit 1")
    assert setup(box).code == 0, "no logind: nothing was planned"


def test_setup_says_which_program_the_box_lacks(box):
    (box.root / "bin/aws").unlink()
    for name in ("bash", "cat", "mkdir", "df", "awk", "flock", "dirname", "id", "grep", "chmod", "mv"):
        (box.root / "bin" / name).symlink_to(f"/usr/bin/{name}")
    settings = {"INSTANCE": "i-1", "GPU": "no", "SUPERVISOR": "x", "LIFE_LEFT": "", "PRICE": "", "PATIENCE": 1}
    text = compose("setup", {"REGION": "r", "MOUNT_PATH": "/mnt"} | settings)
    text = text.replace("/usr/local/bin:/usr/bin:/bin:/snap/bin", "")
    refused(scripts.run(text, box.root, PATH=f"{box.root}/bin"), "the box has no `aws`", "bad_config")


# A systemd that is as the file `systemd` says: whether the unit is enabled, and whether its text has changed since it was read.
SYSTEMD = """echo "$*" >>systemctl.log
case "$*" in
  is-enabled*) [ -e enabled ] ;;
  enable*) touch enabled ;;
  show*) [ -e changed ] && echo yes || echo no ;;
  daemon-reload) rm changed ;;
esac"""


def reloads(box) -> list[str]:
    """What systemd was told to do that makes it read its units anew."""
    path = box.root / "systemctl.log"
    commands = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line for line in commands if line.split()[0] in ("daemon-reload", "enable")]


@pytest.fixture
def systemd(box):
    (box.root / "run/systemd/system").mkdir(parents=True)
    box.tool("systemctl", SYSTEMD)
    return box


def test_setup_makes_a_unit_where_there_is_systemd_and_starts_docker(systemd):
    result = setup(systemd)
    assert (result.code, result.facts["gpu"]) == (0, "none"), result.stderr
    assert "Restart=always" in (systemd.root / "etc/systemd/system/fine-tune-slm.service").read_text()
    commands = (systemd.root / "systemctl.log").read_text().splitlines()
    assert [line for line in commands if not line.startswith(("is-enabled", "show"))] == [
        "enable fine-tune-slm.service",
        "start fine-tune-slm.service",
        "start --no-block docker.service",
    ]


def test_a_setup_that_changes_nothing_makes_systemd_read_nothing_anew(systemd):
    """A reload takes the GPU from containers that NVIDIA's hook has given it to."""
    assert setup(systemd).code == 0 and reloads(systemd) == ["enable fine-tune-slm.service"]
    assert setup(systemd).code == 0 and reloads(systemd) == []


def test_a_unit_that_has_changed_is_read_anew_once_no_container_runs(systemd):
    systemd.put("enabled", "")
    systemd.put("changed", "")
    systemd.put("docker/names", "fine-tune-slm-x")
    result = setup(systemd)
    assert (result.code, reloads(systemd)) == (0, []) and "when no run goes on" in result.stderr
    (systemd.root / "docker/names").unlink()
    assert setup(systemd).code == 0 and reloads(systemd) == ["daemon-reload"]
    assert setup(systemd).code == 0 and reloads(systemd) == []


def test_a_command_that_fails_unforeseen_names_its_line(box):
    box.put("mounted", "")
    box.tool("umount", "exit 3")
    box.tool("sync", "exit 5")
    result = box.run("stop", FORCE="no")
    assert result.code == 5 and "sync exited with 5" in result.stderr


def test_stop_and_cancel_give_up_on_a_run_that_nobody_ships(box):
    box.going_on()
    refused(box.run("stop", FORCE="no"), "files are not in S3 yet")
    refused(box.run("cancel"), "files are not in S3 yet")
    assert (box.state / "ending").read_text().startswith("cancelled\n")


@pytest.mark.parametrize("ended", ["by the user", "by itself"])
def test_an_evaluation_that_nobody_follows_does_not_hold_the_volume(box, ended):
    box.put("mounted", "")
    box.put("docker/evaluating", "")
    box.tool("docker", 'case "$*" in "rm --force fine-tune-slm-examine") rm docker/evaluating ;; *) ' + DOCKER + " ;; esac")
    box.tool("umount", "[ ! -e docker/evaluating ] && rm mounted")
    printed = box.run("stop", FORCE="no").stderr if ended == "by the user" else box.supervise()
    assert not (box.root / "mounted").exists(), printed


def test_stop_says_that_something_still_uses_the_volume(box):
    box.put("mounted", "")
    box.tool("umount", "exit 32")
    refused(box.run("stop", FORCE="no"), "still uses the volume")


def test_cancel_needs_the_volume_and_a_run_on_it(box):
    refused(box.run("cancel"), "the volume is not mounted", "refused")
    box.put("mounted", "")
    refused(box.run("cancel"), "no run goes on", "refused")


def test_cancel_asked_again_names_the_run_that_it_has_cancelled_and_no_other(box):
    box.put("mounted", "")
    for name, phase, moment in (("earlier", "cancelled", 1), ("last", "done", 2)):
        box.put(f"mnt/training/runs/{name}/state.json", f'{{"phase": "{phase}"}}')
        os.utime(box.root / f"mnt/training/runs/{name}/state.json", (moment, moment))
    refused(box.run("cancel"), "no run goes on", "refused")
    os.utime(box.root / "mnt/training/runs/earlier/state.json", (3, 3))
    assert box.run("cancel").facts == {"run_id": "earlier", "phase": "cancelled", "changed": "no"}


def train(box, **settings) -> Result:
    usual = {"RUN_ID": RUN, "IMAGE": "r/i@sha256:0", "BUCKET": "b", "PREFIX": "p", "INPUTS": "", "HUB_SECRET": "hub", "GPU": "no"}
    return box.run("train", **usual | {"NEED_GB": 1, "CONFIG": sha256(MINE)} | settings)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_train_says_what_is_missing_on_the_box(box):
    refused(train(box), "the volume is not mounted", "refused")
    box.put("mounted", "")
    supervisor = box.root / "opt/fine-tune-slm/supervise.sh"
    supervisor.chmod(0o644)
    refused(train(box), "the box is not set up", "refused")
    supervisor.chmod(0o755)
    box.tool("docker", '[ "$1" = info ]')
    refused(train(box), "the trainer's image is not on the box", "refused")


def test_train_refuses_a_second_run_and_a_volume_without_room(box):
    box.going_on(names="fine-tune-slm-another")
    refused(train(box), "another is still running", "refused")
    (box.root / "docker/names").unlink()
    (box.mount / "hub-cache").mkdir()
    refused(train(box, NEED_GB=10**9), "the run needs about 1000000000 GB", "disk_full")


def test_a_token_in_json_is_found_and_its_every_value_hidden(box):
    folder = box.going_on()
    secret = '{"owner": "me",\\n "hub_token": "hf_first"}'
    box.tool("aws", f"case \"$*\" in *get-secret-value*) printf '{secret}' ;; esac")
    text = compose("cancel", {"REGION": "r", "MOUNT_PATH": "/mnt/training", "HUB_SECRET": "hub"})
    (folder / "log.txt").write_text("a hf_first b\nhf_first\n")
    own = text.rpartition('main "$@"')[0] + f'fetch_token\nhide "$MOUNT/runs/{RUN}/log.txt"\n'
    assert scripts.run(own, box.root).code == 0
    assert (box.state / "trainer/hub-token").read_text() == "hf_first\n"
    assert (folder / "log.txt").read_text() == "a ******** b\n********\n"


def test_what_a_new_volume_lacks_of_a_run_is_fetched_and_its_log_goes_on_where_it_ended(box):
    """Input, settings, log, events and checkpoints; the token comes to tmpfs, and the container is started with all of it."""
    rows = b"rows"
    sha = hashlib.sha256(rows).hexdigest()
    box.put("mounted", "")
    for name in ("inputs", "hub-cache", "shipped", "runs"):
        (box.mount / name).mkdir(parents=True)
    run = "mnt/training/run.part"
    box.tool(
        "aws",
        f"""case "$*" in *"--include decided.json"*) mkdir -p {run}; echo '{{"recompute": "yes"}}' >{run}/decided.json ;; esac
case "$*" in
  *get-secret-value*) echo hf_token ;;
  *p/inputs*) mkdir mnt/training/inputs.part; printf rows >mnt/training/inputs.part/{sha} ;;
  *p/runs/*)
    mkdir -p {run}/log {run}/checkpoints/step-000005
    echo x >{run}/config.yaml
    printf 'one\\n' >{run}/log/000000000000
    printf 'two\\n' >{run}/log/000000000004
    ;;
esac""",
    )
    box.tool("docker", DOCKER + 'case "$*" in run*--detach*) echo "$*" >docker/started; echo running >docker/state ;; esac')
    result = train(box, INPUTS=sha, NEED_GB=0, GPU="yes", CONFIG=sha256("x\n"))
    assert (result.code, result.facts["changed"], result.facts["container"]) == (0, "yes", "running"), result.stderr
    assert (box.mount / f"runs/{RUN}/log.txt").read_text() == "one\ntwo\n"
    assert (box.mount / f"shipped/{RUN}").read_text() == "8\n" and (box.mount / f"shipped/{RUN}.checkpoints").read_text() == "step-000005\n"
    assert json.loads((box.mount / f"runs/{RUN}/decided.json").read_text()) == {"recompute": "yes"}
    assert (box.mount / f"inputs/{sha}").read_bytes() == rows
    assert (box.mount / "current").read_text() == f"{RUN}\n"
    started = (box.root / "docker/started").read_text()
    assert "--gpus all" in started and "--cap-drop ALL" in started and "hf_token" not in started
    assert "--device" not in started, "there is no device to name"
    assert f"run {box.mount}/runs/{RUN} {sha256('x' + chr(10))}" in started, "the trainer gets the hash of its settings"
    assert train(box, INPUTS=sha, NEED_GB=0, GPU="yes").facts["changed"] == "no"


def carried_out(box, text: str) -> str:
    return text.replace("RAN", f"{box.root}/ran")


@pytest.mark.parametrize("name", ["9+a[$(touch${IFS}RAN)]", "a[$(touch${IFS}RAN)]", "9999999999999999999999"])
def test_the_name_of_a_piece_of_the_log_in_s3_is_carried_out_by_nobody(box, name):
    """Write access to the bucket once gave root on the box: bash's arithmetic runs the commands inside an index."""
    box.going_on(phase="failed")
    (box.mount / "hub-cache").mkdir()
    (box.root / "listing").write_text(f"2026-11-22 00:00:00 1 000000000000\n2026-11-22 00:00:00 1 {carried_out(box, name)}\n")
    box.tool("aws", 'case "$*" in *"s3 ls"*) cat listing ;; *get-secret-value*) echo hf_token ;; *run.part*) touch fetched ;; esac')
    box.tool("docker", DOCKER + 'case "$*" in run*--detach*) echo running >docker/state ;; esac')
    (box.mount / f"shipped/{RUN}").write_text("8\n")
    result = train(box, NEED_GB=0)
    assert (result.code, result.facts.get("changed")) == (0, "yes"), result.stderr
    assert not (box.root / "ran").exists() and not (box.root / "fetched").exists(), "no other box has gone on with it"


def test_only_what_a_trainer_calls_a_checkpoint_is_noted_as_one(box):
    """By the names that are noted the supervisor removes checkpoints from S3: `*` there took every checkpoint of the run away."""
    box.put("mounted", "")
    for name in ("inputs", "hub-cache", "shipped", "runs"):
        (box.mount / name).mkdir(parents=True)
    places = " ".join(f"'mnt/training/run.part/checkpoints/{name}'" for name in ("*", "step-000005", "step-9 --include x", "..x"))
    fetched = f"mkdir -p {places}; echo x >mnt/training/run.part/config.yaml"
    box.tool("aws", f'case "$*" in *get-secret-value*) echo hf_token ;; *p/runs/*) {fetched} ;; esac')
    box.tool("docker", DOCKER + 'case "$*" in run*--detach*) echo running >docker/state ;; esac')
    assert train(box, NEED_GB=0, CONFIG=sha256("x\n")).code == 0
    assert (box.mount / f"shipped/{RUN}.checkpoints").read_text() == "step-000005\n"


def test_only_pieces_of_the_log_become_the_log_of_a_run_that_is_fetched(box):
    box.put("mounted", "")
    for name in ("inputs", "hub-cache", "shipped", "runs"):
        (box.mount / name).mkdir(parents=True)
    part = "mnt/training/run.part"
    pieces = f"printf 'two\\n' >{part}/log/000000000004; printf 'one\\n' >{part}/log/000000000000; printf 'bad\\n' >{part}/log/zzz"
    box.tool(
        "aws",
        f'case "$*" in *get-secret-value*) echo hf_token ;; *p/runs/*) mkdir -p {part}/log; echo x >{part}/config.yaml; {pieces} ;; esac',
    )
    box.tool("docker", DOCKER + 'case "$*" in run*--detach*) echo running >docker/state ;; esac')
    assert train(box, NEED_GB=0, CONFIG=sha256("x\n")).code == 0
    assert (box.mount / f"runs/{RUN}/log.txt").read_text() == "one\ntwo\n" and (box.mount / f"shipped/{RUN}").read_text() == "8\n"


@pytest.mark.parametrize("left", ["a[$(touch${IFS}RAN)]", "1+a[$(touch${IFS}RAN)]"])
def test_what_is_noted_on_a_volume_is_a_number_or_nothing(box, left):
    box.put("mounted", "")
    box.put("mnt/training/shipped/.keep", "")
    folder = box.put(f"mnt/training/runs/{RUN}/state.json", '{"phase": "failed"}').parent
    (folder / "log.txt").write_text("one\n")
    left = carried_out(box, left)
    (box.mount / f"shipped/{RUN}").write_text(f"{left}\n")
    box.put("mnt/training/requeue", f"{RUN}\n{left}\n")
    box.tool("aws", LOGGED + '; case "$*" in *get-secret-value*) echo hf_token ;; esac')
    box.tool("docker", 'case "$1" in start) echo running >docker/state ;; esac' + DOCKER)
    box.supervise(life=3)
    assert not (box.root / "ran").exists()


def test_the_devices_of_the_gpu_are_named_beside_what_the_hook_gives(box):
    """What only the hook gives, a reload of systemd takes away."""
    box.going_on(phase="failed")
    (box.mount / "hub-cache").mkdir()
    (box.root / "dev/nvidia-caps").mkdir(parents=True)
    for name in ("nvidia0", "nvidiactl"):
        (box.root / "dev" / name).symlink_to("/dev/null")
    box.tool("docker", DOCKER + 'case "$*" in run*--detach*) echo "$*" >docker/started; echo running >docker/state ;; esac')
    train(box, NEED_GB=0, GPU="yes")
    started = (box.root / "docker/started").read_text()
    assert f"--gpus all --device {box.root}/dev/nvidia0 --device {box.root}/dev/nvidiactl --volume" in started


def test_a_run_that_was_finished_and_not_delivered_is_delivered_and_not_trained_again(box):
    folder = box.going_on(phase="failed")
    (folder / "manifest.json").write_text("{}")
    result = train(box)
    assert (result.code, result.facts["changed"], box.run_state()["phase"]) == (0, "no", "uploading"), result.stderr


def test_a_run_that_starts_again_waits_until_the_supervisor_is_done_with_its_last_attempt(box):
    box.going_on(phase="failed")
    (box.mount / "hub-cache").mkdir()
    box.tool("flock", 'touch asked; exec /usr/bin/flock "$@"')
    box.tool("docker", DOCKER + '[ "$1" != run ] || { [ ! -e asked ] || touch in_order; echo running >docker/state; }')
    assert train(box, NEED_GB=0).facts["changed"] == "yes"
    assert (box.root / "in_order").exists()


def test_a_run_whose_end_is_not_in_s3_is_not_pushed_aside_by_another(box):
    box.going_on()
    box.put("mnt/training/current", "another\n")
    refused(train(box), "files are not in S3 yet")
    assert (box.mount / "current").read_text() == "another\n"


@pytest.mark.parametrize(("newest", "fetched"), [("000000000004", False), ("000000000008", True), ("000000000099", True)])
def test_what_another_box_has_added_to_a_run_is_fetched_before_it_goes_on_here(box, newest, fetched):
    """The volume has sent 8 bytes of the log: a piece in S3 that begins there or later is another's."""
    folder = box.going_on(phase="failed")
    box.put(f"mnt/training/runs/{RUN}/config.yaml", "old")
    box.put(f"mnt/training/shipped/{RUN}", "8\n")
    (box.mount / "hub-cache").mkdir()
    run = "mnt/training/run.part"
    box.tool(
        "aws",
        f"""case "$*" in
  *"s3 ls"*) echo "2026-11-22 12:00:00 4 000000000000"; echo "2026-11-22 12:00:00 4 {newest}" ;;
  *log/{newest}*) echo more ;;
  *p/runs/*) mkdir -p {run}/log; echo new >{run}/config.yaml; printf 'one\ntwo\nmore\n' >{run}/log/000000000000 ;;
esac""",
    )
    box.tool("docker", DOCKER + '[ "$1" != run ] || echo running >docker/state')
    assert train(box, NEED_GB=0, CONFIG=sha256("new\n" if fetched else "old")).facts["changed"] == "yes"
    assert ((folder / "config.yaml").read_text() == "new\n") == fetched


@pytest.mark.parametrize("there", ["sent", "other"])
def test_a_run_is_trained_with_the_settings_that_were_sent_or_not_at_all(box, there):
    """Whatever the volume and S3 have by now: the laptop has read these very bytes."""
    folder = box.going_on(phase="failed")
    (folder / "config.yaml").write_text("of somebody else")
    (box.mount / "hub-cache").mkdir()
    box.tool("aws", f"""case "$*" in *s3:*/runs/{RUN}/config.yaml*) printf {there} >"$5" ;; esac""")
    box.tool("docker", DOCKER + 'case "$*" in run*--detach*) echo running >docker/state ;; esac')
    result = train(box, NEED_GB=0, CONFIG=sha256("sent"))
    if there == "sent":
        assert result.code == 0, result.stderr
        assert result.facts["changed"] == "yes" and (folder / "config.yaml").read_text() == "sent"
    else:
        refused(result, "have changed since they were read", "damaged_run")
        assert not (box.root / "docker/state").exists()


def test_a_token_in_what_a_trainer_said_last_is_hidden_before_the_state_is_written(box):
    """It came to S3 in the evidence: what was hidden then was the log."""
    token = "hf_the_token_of_all"
    code = base64.b64encode(f"me:{token}".encode()).decode()
    folder = box.going_on()
    lines = "\n".join([f"fetch_token; write_state {folder} failed crashed 'sent {code} as {'x' * 470} {token}' hint"])
    box.tool("aws", f"echo {token}")
    text = compose("cancel", {"REGION": "r", "MOUNT_PATH": "/mnt/training", "HUB_SECRET": "hub"})
    assert scripts.run(text.rpartition('main "$@"')[0] + lines + "\n", box.root).code == 0
    evidence = box.run_state()["evidence"]
    assert evidence.startswith("sent ") and "*" * 10 in evidence and "hf_" not in evidence
    assert token[4:] not in base64.b64decode(evidence.split()[1].replace("*", "A")).decode(errors="replace")


def test_docker_s_own_words_are_told_where_it_cannot_start_the_trainer(box):
    box.going_on(phase="failed")
    (box.mount / "hub-cache").mkdir()
    box.tool("docker", DOCKER + '[ "$1" != run ] || { echo "could not select device driver: [[gpu]]" >&2; exit 125; }')
    refused(train(box, NEED_GB=0, GPU="no"), "could not start the trainer: could not select device driver: [[gpu]]", "crashed")


def test_a_gpu_that_docker_cannot_give_stops_the_run_before_it_computes_on_cpus(box):
    box.going_on(phase="failed")
    (box.mount / "hub-cache").mkdir()
    box.tool(
        "docker",
        DOCKER + 'case "$*" in run*--entrypoint*) echo "exec: nvidia-smi: not found in PATH" >&2; exit 127 ;; run*) touch started ;; esac',
    )
    refused(train(box, NEED_GB=0, GPU="yes"), "no GPU reaches the trainer's image: exec: nvidia-smi: not found in PATH", "bad_config")
    assert not (box.root / "started").exists()


def test_an_image_is_pulled_once_with_a_token_of_the_box_s_own(box):
    box.tool(
        "docker", 'case "$1 $2" in "info "*) ;; "image inspect") [ -e pulled ] ;; "login "*) cat >token ;; "pull "*) touch pulled ;; esac'
    )
    box.tool("aws", "echo of-the-registry")
    image = {"IMAGE": "r.example/i@sha256:0", "BUILT": "no"}
    assert [box.run("deploy", **image).facts["changed"] for _ in range(2)] == ["yes", "no"]
    assert (box.root / "token").read_text() == "of-the-registry\n"


def test_cleaning_removes_what_is_not_kept_from_the_volume(box):
    assert box.run("clean", KEPT="").facts == {"changed": "no"}
    box.going_on()
    for name in ("runs/kept/x", "runs/other/x", "shipped/other"):
        box.put(f"mnt/training/{name}", "")
    result = box.run("clean", KEPT=f"kept {RUN}")
    assert (result.code, result.facts["changed"]) == (0, "yes"), result.stderr
    assert {path.name for path in (box.mount / "runs").iterdir()} == {"kept", RUN}
    assert not (box.mount / "shipped/other").exists()


def test_a_step_holds_the_box_while_it_works_and_lets_it_go_at_its_end(box):
    """Meanwhile the box is shown as in use until the step's own timeout."""
    box.tool("docker", DOCKER + "cp run/fine-tune-slm/lease seen")
    assert box.run("stop", FORCE="no", LEASE=500).facts["changed"] == "no"
    assert int((box.root / "seen").read_text()) - int((box.state / "lease").read_text()) > 400


def test_a_box_says_which_places_it_cannot_reach(box):
    box.tool("nvidia-smi", "echo 'NVIDIA L4, 23034 MiB, 580.95.05'")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        result = box.run("probe", HOSTS=f"here=127.0.0.1:{server.getsockname()[1]} nowhere=127.0.0.1:1", GPU="yes")
    assert (result.facts["driver"], result.facts["unreachable"]) == ("580.95.05", "nowhere"), result.stderr
    assert result.facts["gpu_lost"] == ""


def test_a_place_to_reach_is_carried_out_by_nobody(box):
    place = f"Hub=$(touch${{IFS}}{box.root}/ran):1"
    assert box.run("probe", HOSTS=place, GPU="no").facts["unreachable"] == "Hub"
    assert not (box.root / "ran").exists()


def test_a_box_says_which_run_has_lost_the_gpu(box):
    box.going_on(names=f"fine-tune-slm-{RUN}")
    box.tool("docker", DOCKER + 'case "$*" in "exec fine-tune-slm-"*) echo "Failed to initialize NVML: Unknown Error"; exit 255 ;; esac')
    assert box.run("probe", HOSTS="here=127.0.0.1:1", GPU="no").facts["gpu_lost"] == ""
    assert box.run("probe", HOSTS="here=127.0.0.1:1", GPU="yes").facts["gpu_lost"] == RUN


def test_a_stop_ends_the_run_that_goes_on_only_when_told_to(box):
    box.going_on(names=f"fine-tune-slm-{RUN}")
    refused(box.run("stop", FORCE="no"), f"{RUN} is still running", "refused")
    (box.mount / "current").unlink()
    result = box.run("stop", FORCE="yes")
    assert (result.code, result.facts["stopped_run"], result.facts["changed"]) == (0, RUN, "yes"), result.stderr


def test_a_run_that_is_cancelled_ends_with_the_phase_that_was_left(box):
    box.going_on(phase="cancelled")
    box.tool("docker", 'case "$1" in stop) rm mnt/training/current ;; esac')
    result = box.run("cancel")
    assert (result.code, result.facts["run_id"], result.facts["phase"]) == (0, RUN, "cancelled"), result.stderr


# The supervisor


def test_checkpoints_travel_once_and_those_that_the_trainer_gave_up_are_removed(box):
    folder = box.going_on(exit="143")
    for step in ("step-000005", "step-000010"):
        box.put(f"mnt/training/runs/{RUN}/checkpoints/{step}/COMPLETE", "")
    box.put(f"mnt/training/shipped/{RUN}.checkpoints", "step-000002\nstep-000005\n")
    box.supervise()
    assert (box.mount / f"shipped/{RUN}.checkpoints").read_text() == "step-000005\nstep-000010\n"
    removed = [line for line in (box.root / "aws.log").read_text().splitlines() if line.startswith("s3 rm")]
    assert len(removed) == 1 and "step-000002/*" in removed[0] and folder.exists()


def test_a_run_that_nobody_can_ship_is_ended_when_the_box_is_over_its_time(box):
    """Nothing answers: neither AWS nor shutdown; the volume is still unmounted, and the run says why it ended."""
    box.going_on(state="running", exit="143")
    box.tool("aws", "exit 255")
    box.tool("shutdown", "exit 1")
    printed = box.supervise(life=0)
    for words in ("box.max_hours is over", "the tag was not taken", "S3 did not take the report", "nothing stops this box"):
        assert words in printed
    assert box.run_state()["reason"] == "stopped" and not (box.root / "mounted").exists()


def test_a_volume_in_use_does_not_keep_the_box_on(box):
    box.put("mounted", "")
    box.tool("umount", "exit 32")
    printed = box.supervise()
    assert "idle: no run and no command" in printed and "the volume is in use" in printed
    assert "stop-instances" in (box.root / "aws.log").read_text()


def test_a_command_that_comes_at_the_last_moment_keeps_the_box_and_its_volume(box):
    """It comes between the look at the lease and the end of the box, which waits until it is done."""
    box.put("mounted", "")
    box.tool("flock", "[ -e come ] || { touch come; echo $(($(cut -d . -f 1 /proc/uptime) + 3)) >run/fine-tune-slm/lease; }")
    box.tool("umount", "cut -d . -f 1 /proc/uptime >unmounted; rm mounted")
    assert box.supervise().count("stopping this box: idle") == 1
    assert int((box.root / "unmounted").read_text()) > int((box.state / "lease").read_text())


def test_a_command_that_hangs_keeps_no_box_on(box):
    box.put("mounted", "")
    lock = box.put("run/fine-tune-slm/step.lock", "")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "stopping this box: idle" in box.supervise()


@pytest.mark.parametrize(
    ("docker", "reason", "evidence"),
    [
        ({"oom": "true", "exit": "137"}, "out_of_memory", "no memory left"),
        ({"exit": "139"}, "killed", "signal 11"),
        ({"exit": "1"}, "crashed", "the last words of the container"),
    ],
)
def test_why_a_trainer_ended_that_could_not_say_so(box, docker, reason, evidence):
    box.going_on(**docker)
    box.supervise()
    assert (box.run_state()["phase"], box.run_state()["reason"]) == ("failed", reason)
    assert evidence in box.run_state()["evidence"]
    assert not (box.mount / "current").exists()


def test_a_trainer_that_filled_the_disk_could_not_say_so(box):
    box.going_on(exit="1")
    box.put("mnt/training/reserve", "room")
    box.tool("df", "echo; echo disk 100 100 0 100% /mnt")
    box.supervise()
    assert box.run_state()["reason"] == "disk_full" and not (box.mount / "reserve").exists()


def test_what_the_trainer_says_itself_stays(box):
    box.going_on(phase="failed", exit="1")
    box.supervise()
    assert box.run_state() == {"phase": "failed"}


@pytest.mark.parametrize(("phase", "ended"), [("uploading", "done"), ("running", "failed")])
def test_an_end_that_s3_does_not_take_is_kept_and_delivered_when_the_box_is_up_again(box, phase, ended):
    """It is no use of the box either: idle, it stops."""
    box.going_on(phase=phase, exit="1")
    box.tool("aws", '[ "$1" != s3 ]')
    printed = box.supervise()
    assert f"the end of {RUN} is not in S3 yet" in printed and "stopping this box: idle" in printed
    assert (box.mount / "current").exists()
    box.put("mounted", "")
    box.tool("aws", LOGGED)
    box.supervise()
    assert box.run_state()["phase"] == ended and not (box.mount / "current").exists()
    assert int((box.mount / f"shipped/{RUN}").read_text()) >= len("one\ntwo\n")


def calls(box, *words: str) -> list[int]:
    """At which places of all that `aws` was asked these words stand."""
    return [place for place, line in enumerate((box.root / "aws.log").read_text().splitlines()) if all(word in line for word in words)]


def test_the_phase_that_ends_a_run_travels_behind_the_last_of_its_log(box):
    """A watcher stops at that phase."""
    folder = box.going_on(phase="failed", state="running", exit="1")
    (folder / "log.txt").write_text("one\nno end")
    box.tool(
        "aws",
        LOGGED
        + '; case "$*" in *outbox*) ls run/fine-tune-slm/outbox | tr "\n" " " >>sent; cat run/fine-tune-slm/outbox/log/* >>sent ;; esac',
    )
    box.tool(
        "docker", DOCKER.replace("rm -f docker/state; exit 125", "if [ -e waited ]; then rm -f docker/state; else touch waited; fi; exit 0")
    )
    box.supervise()
    sent = (box.root / "sent").read_text()
    assert sent.startswith("checkpoints log one\n") and sent.endswith("no end"), "half a line may be half a token"
    assert "state.json" not in sent
    (last,) = calls(box, "state.json s3://b/p/runs")
    assert last > max(calls(box, "outbox"))


def test_what_the_trainer_has_decided_is_in_s3_before_the_run_is_finished(box):
    """A run that went on elsewhere decided anew."""
    folder = box.going_on(state="running", exit="143")
    (folder / "decided.json").write_text('{"recompute": "yes"}')
    box.tool("aws", 'case "$*" in *outbox*) cp run/fine-tune-slm/outbox/decided.json sent ;; esac')
    box.supervise()
    assert json.loads((box.root / "sent").read_text()) == {"recompute": "yes"}


def test_a_box_that_wakes_up_with_a_run_that_another_one_has_gone_on_with_lets_go_of_it(box):
    folder = box.going_on(state="running")
    box.put("claim", '{"name": "other", "instance": "i-2"}')
    box.tool("docker", DOCKER + '[ "$1" != kill ] || rm docker/state')
    box.tool("aws", LOGGED + f"; {pieces(8, 'more')}")
    assert f"another box has gone on with {RUN}" in box.supervise()
    assert not (folder.exists() or (box.mount / "current").exists() or (box.root / "docker/state").exists())
    assert calls(box, "outbox") == [], "it has touched what is the other's"


@pytest.mark.parametrize("in_s3", ["", "noted", "not noted", "cut"])
def test_the_volume_of_a_box_that_is_gone_keeps_its_run_on_the_next_box_where_s3_has_no_more_of_it(box, in_s3):
    """The next box wakes up with it before `inv train` has made it this box's: the newest checkpoint may be nowhere else."""
    folder = box.going_on()
    box.put("claim", '{"name": "mine", "instance": "i-2"}')
    box.put(f"mnt/training/runs/{RUN}/checkpoints/step-000004/COMPLETE", "")
    box.put(f"mnt/training/shipped/{RUN}", {"noted": "8", "cut": "4"}.get(in_s3, "0"))
    start, text = {"": (0, ""), "noted": (0, "one\ntwo\n"), "not noted": (0, "one\n"), "cut": (4, "")}[in_s3]
    box.tool("aws", LOGGED + f"; {pieces(start, text, listed=bool(in_s3))}")
    assert "it stays here as it is until `inv train`" in box.supervise()
    assert (folder / "checkpoints/step-000004/COMPLETE").exists() and (folder / "log.txt").read_text() == "one\ntwo\n"
    assert not (box.mount / "current").exists() and calls(box, "outbox") == []


def pieces(start: int, text: str, listed: bool = True) -> str:
    """The newest piece of the run's log in S3, which begins there; without a text S3 does not give it away."""
    listing = f'*"s3 ls"*) echo "2026-11-22 12:00:00 4 {start:012d}" ;;' if listed else ""
    given = f"printf '{text}'" if text else "exit 1"
    return f'case "$*" in {listing} *log/{start:012d}*) {given} ;; esac'


def test_a_checkpoint_that_is_written_while_the_log_is_sent_waits_for_its_steps_in_the_log(box):
    """A box that is lost then would go on after steps that no log has."""
    folder = box.going_on(state="running", exit="143")
    box.tool(
        "cp",
        f"""case "$*" in *chunk*) mkdir -p {folder}/checkpoints/step-000004; touch {folder}/checkpoints/step-000004/COMPLETE ;; esac
exec /bin/cp "$@" """,
    )
    box.tool("docker", DOCKER.replace("rm -f docker/state; exit 125", "rm -f docker/state; exit 0"))
    box.tool("aws", LOGGED + '; case "$*" in *outbox*) ls run/fine-tune-slm/outbox/checkpoints >>sent; echo . >>sent ;; esac')
    box.supervise()
    first, second, *_ = (box.root / "sent").read_text().split(".\n")
    assert (first, second) == ("", "step-000004\n")


def test_a_box_sends_nothing_before_s3_has_said_whose_the_run_is(box):
    box.going_on(state="running", exit="143")
    (box.root / "claim").unlink()
    box.tool("docker", DOCKER.replace("rm -f docker/state; exit 125", "/bin/sleep 0.2"))
    box.supervise(life=2)
    assert calls(box, "outbox") == [] and (box.mount / "current").exists()


def test_a_docker_that_hangs_does_not_keep_the_box_on(box):
    box.going_on(state="running")
    box.tool("docker", "exec /bin/sleep 60")
    box.tool("timeout", 'shift; exec /usr/bin/timeout 0.3 "$@"')
    printed = box.supervise(life=0)
    assert "docker did not stop" in printed and "stop-instances" in (box.root / "aws.log").read_text()
    assert box.run_state()["reason"] == "stopped"


def test_a_gpu_that_is_gone_computes_nothing(box):
    folder = box.going_on(state="running", exit="143")
    box.tool("docker", DOCKER.replace("rm -f docker/state; exit 125", "/bin/sleep 0.3"))
    box.tool("nvidia-smi", "exit 9")
    for path in (folder, *folder.iterdir()):
        os.utime(path, (1, 1))
    assert "has written nothing" in box.supervise(idle=2)


def test_a_model_that_is_being_fetched_is_no_hanging_trainer(box):
    folder = box.going_on(state="running", exit="143")
    box.tool("docker", DOCKER.replace("rm -f docker/state; exit 125", "/bin/sleep 0.3; touch mnt/training/hub-cache/blob.incomplete"))
    box.tool("nvidia-smi", "echo 0")
    box.put("mnt/training/hub-cache/blob.incomplete", "")
    for path in (folder, *folder.iterdir()):
        os.utime(path, (1, 1))
    assert "box.max_hours is over" in box.supervise(idle=2, life=4)


def test_what_is_said_of_an_end_is_cut_between_characters(box):
    box.going_on(exit="1")
    box.tool("docker", DOCKER.replace('echo "the last words of the container"', f'echo "x{"é" * 400}"'))
    box.supervise()
    assert box.run_state()["evidence"] == "x" + "é" * 249


def test_a_log_stream_that_is_not_there_is_made(box):
    box.going_on(exit="1")
    box.tool("aws", LOGGED + '; case "$*" in *create-log-stream*) touch stream ;; *put-log-events*) [ -e stream ] ;; esac')
    assert "CloudWatch did not take a chunk" not in box.supervise()
    assert len(calls(box, "create-log-stream")) == 1 and len(calls(box, "put-log-events")) == 2


def test_a_finished_run_is_done_though_its_checkpoints_cannot_be_removed(box):
    box.going_on(phase="uploading")
    box.tool("aws", '[ "$1 $2" != "s3 rm" ]')
    assert "checkpoints are left in S3" in box.supervise()
    assert box.run_state()["phase"] == "done"


def test_a_log_that_nobody_takes_is_shipped_later(box):
    box.going_on(state="running", exit="1")
    box.tool("aws", 'case "$*" in *outbox*) [ -e refused ] || { touch refused; exit 1; } ;; esac')
    assert "S3 does not take the log; trying again in 0.2 s" in box.supervise()
    assert int((box.mount / f"shipped/{RUN}").read_text()) >= len("one\ntwo\n")


def test_cloudwatch_and_a_token_that_cannot_be_read_do_not_hold_up_the_log(box):
    box.going_on(exit="1")
    box.put("run/fine-tune-slm/trainer/hub-token", "old\n")
    box.tool("aws", '[ "$1" = s3 ]')
    printed = box.supervise()
    assert "the old one stays in use" in printed and "CloudWatch did not take a chunk" in printed
    assert int((box.mount / f"shipped/{RUN}").read_text()) >= len("one\ntwo\n")


def test_a_trainer_that_hangs_is_no_use_of_the_box(box):
    folder = box.going_on(state="running", exit="143")
    box.tool("docker", DOCKER.replace("rm -f docker/state; exit 125", "/bin/sleep 0.3"))
    box.tool("nvidia-smi", "echo 0")
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert "has written nothing" in box.supervise(idle=2)
    assert box.run_state()["reason"] == "stopped"


def test_a_spot_box_that_is_taken_back_ends_its_run_first(box):
    box.going_on(state="running", exit="143")
    box.tool("curl", NOTICE)
    box.tool("aws", 'case "$*" in *report.json*) cat run/fine-tune-slm/report.json >>reports ;; esac')
    box.supervise()
    assert "2026-11-22T12:00:00Z" in box.run_state()["evidence"]
    assert '"stopped": "spot interruption"' in (box.root / "reports").read_text()


NOTICE = """case "$*" in *PUT*) echo token ;; *) echo '{"action": "stop", "time": "2026-11-22T12:00:00Z"}' ;; esac"""


def test_the_run_of_a_spot_box_that_was_taken_back_goes_on_when_aws_starts_it_again(box):
    """With what was left of the limit of costs; nobody has typed anything."""
    folder = box.going_on(state="running", exit="143")
    box.tool("curl", NOTICE)
    up = box.uptime
    box.put("run/fine-tune-slm/life", f"{up + 500}\n")
    box.supervise(life=60)
    run, left = (box.mount / "requeue").read_text().split()
    assert run == RUN and 400 < int(left) <= 500 and not (box.mount / "current").exists()
    assert "goes on when AWS starts the box again" in box.run_state()["hint"]

    for path in (*box.state.glob("*"), box.root / "docker/state"):  # a boot: tmpfs is empty, no container runs
        path.unlink() if path.is_file() else None
    box.put("mounted", "")
    box.tool("curl", "exit 7")
    box.tool("aws", LOGGED + '; case "$*" in *get-secret-value*) echo hf_token ;; esac')
    box.tool(
        "docker",
        'case "$1" in start) echo running >docker/state; echo "$2" >>docker/started ;; wait) cp run/fine-tune-slm/life seen ;; esac'
        + DOCKER,
    )
    box.supervise(life=3)
    assert (box.root / "docker/started").read_text() == f"fine-tune-slm-{RUN}\n"
    assert int((box.root / "seen").read_text()) - up < 600 and (box.state / "trainer/hub-token").read_text() == "hf_token\n"
    assert not (box.mount / "requeue").exists() and folder.exists()


def test_a_spot_box_that_is_off_before_s3_has_the_end_of_its_run_goes_on_with_it_all_the_same(box):
    box.going_on(state="running", exit="143")
    box.tool("curl", NOTICE)
    box.tool("aws", 'case "$*" in *outbox*) kill -KILL $(cat supervisor) ;; esac')
    box.tool("timeout", 'echo $PPID >supervisor; shift; exec "$@"')
    box.supervise()
    assert (box.mount / "requeue").read_text().splitlines()[0] == RUN


@pytest.mark.parametrize("reserve", [True, False])
def test_a_spot_box_with_a_full_volume_notes_its_run_in_the_room_kept_for_that_or_promises_nothing(box, reserve):
    """The note was empty, the run was forgotten, and its state said that it goes on by itself."""
    box.going_on(state="running", exit="143")
    box.tool("curl", NOTICE)
    if reserve:
        box.put("mnt/training/reserve", "room")
    # Where nothing can be written any more, as on a full disk; the room that is given back makes it a file again.
    (box.mount / "requeue.part").symlink_to("/dev/full")
    given_back = "[ ! -e mnt/training/reserve ] || /bin/rm mnt/training/requeue.part"
    box.tool("rm", f'case "$*" in *reserve*) {given_back} ;; *requeue.part*) exit ;; esac; exec /bin/rm "$@"')
    box.supervise()
    assert (box.mount / "requeue").exists() is reserve
    if reserve:
        assert (box.mount / "requeue").read_text().splitlines()[0] == RUN
    words = "goes on when AWS starts the box again" if reserve else "the volume is full, so that it does not go on by itself"
    assert words in box.run_state()["hint"]


def test_nothing_goes_on_by_itself_on_a_box_that_was_taken_down(box):
    box.put("mounted", "")
    box.put("mnt/training/requeue", f"{RUN}\n\n")
    assert box.run("stop", FORCE="no").code == 0
    assert not (box.mount / "requeue").exists()


def test_a_new_supervisor_takes_the_old_one_s_place(box):
    """`up` brings another text while it runs."""
    own = 'echo "the new one is here" >&2; kill -KILL $$'
    box.tool("mountpoint", f"printf '#!/bin/bash\\n%s\\n' '{own}' >opt/fine-tune-slm/supervise.sh; exit 1")
    assert "the new one is here" in box.supervise(idle=60)
