"""Scripts over SSH, to a real sshd: the same results as over Run Command, nobody else trusted, nothing lost when the line is cut."""

import os
import threading
import time
from pathlib import Path

import pytest

from conf import load
from conf.problem import Problem
from remote.aws import instance
from remote.transport import agent, ssh, ssh_ingress
from remote.transport.ssh import Ssh
from remote.transport.ssm import Ssm
from twin import world
from twin.box.ssh import current_user

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("sshd")]
BASH = "#!/bin/bash\n"


@pytest.fixture(scope="module")
def state(aws):
    return Path(os.environ["FABRIC_SSH_CONFIG_PATH"]).parent


@pytest.fixture(scope="module")
def name():
    return "mine"


@pytest.fixture(scope="module")
def mine(aws, name):
    """The id of a box that may be come to by SSH; its agent runs, too."""
    run = load.load(["cloud=twin", f"box.name={name}"], local=Path("none"))
    instance_id = instance.ensure(aws, run.box).instance_id
    instance.wait(aws, instance_id)
    ssh_ingress.open_port(aws, instance_id, name, "auto")
    ssh_ingress.pin_host_key(aws, instance_id, 20)
    agent.wait(aws, instance_id)
    return instance_id


@pytest.fixture
def line(aws, mine, monkeypatch):
    monkeypatch.setattr(ssh, "PATIENCE", 3)
    return Ssh(aws, mine, "ubuntu")


@pytest.fixture
def root(state, mine):
    return state / "boxes" / mine / "root"


@pytest.mark.parametrize(
    "script",
    [
        'echo out; echo err >&2; fact() { printf "@@ %s=%s\\n" "$1" "$2"; }; fact a 1; fact b "x=y"; exit 0',
        "echo half; exit 7",
        "false",
        "printf '\\377\\376 no UTF-8 \\303\\050\\n'; printf '\\200' >&2",
        'read -r line && echo "$line" || echo nothing to read',
        'echo "${BOX_ROOT:+in a box} $0"; id -u',
        "echo 'quotes \"and\" {{ braces }} `ticks` $HOME naïve'",
        "kill -TERM $$",
    ],
)
def test_the_result_is_that_of_run_command(aws, mine, line, script):
    here, there = line.run(BASH + script + "\n", 60), Ssm(aws, mine).run(BASH + script + "\n", 60)
    stderr = there.stderr.partition("failed to run commands")[0]  # the agent's own words come after the script's
    assert (here.code, here.stdout, here.stderr, here.facts) == (there.code, there.stdout, stderr, there.facts)


def test_a_long_script_and_a_long_output_come_whole(line):
    lines = "".join(f": {os.urandom(40).hex()}\n" for _ in range(3000))
    assert len(lines) > 200_000
    done = line.run(f"{BASH}{lines}seq 40000\nseq 30000 >&2\n", 120)
    assert done.stdout == "".join(f"{n}\n" for n in range(1, 40_001))
    assert done.stderr == "".join(f"{n}\n" for n in range(1, 30_001))


def test_another_host_key_is_refused_and_nothing_is_sent(aws, mine, line, root):
    ec2, known = aws.client("ec2"), instance.ssh_endpoint(aws, mine).host_key
    other = ssh._new_key()
    ec2.create_tags(Resources=[mine], Tags=[{"Key": instance.HOST_KEY, "Value": f"ssh-ed25519 {other.get_base64()}"}])
    try:
        with pytest.raises(Problem, match=f"{mine} is not trusted: it has the host key SHA256:.* not the one of its console") as caught:
            line.run(f"{BASH}touch '{root}/sent'\n", 20)
    finally:
        ec2.create_tags(Resources=[mine], Tags=[{"Key": instance.HOST_KEY, "Value": known}])
    assert caught.value.reason == "refused" and "aws ec2 delete-tags" in caught.value.hint
    assert not (root / "sent").exists()


def test_a_box_whose_key_was_never_seen_is_not_connected_to(aws, mine, line):
    ec2, known = aws.client("ec2"), instance.ssh_endpoint(aws, mine).host_key
    ec2.delete_tags(Resources=[mine], Tags=[{"Key": instance.HOST_KEY}])
    try:
        with pytest.raises(Problem, match="has no known host key") as caught:
            line.run(BASH, 20)
    finally:
        ec2.create_tags(Resources=[mine], Tags=[{"Key": instance.HOST_KEY, "Value": known}])
    assert "`inv up -- box.ssh=true`" in caught.value.hint


def test_a_key_is_good_for_a_minute_only_and_every_connection_has_a_new_one(aws, mine, line, state, root, monkeypatch):
    push, sent = Ssh._push, []

    def late(self, user, key):
        push(self, user, key)
        sent.append(key)
        world.forward(state, 61)

    monkeypatch.setattr(Ssh, "_push", late)
    for _ in range(2):
        with pytest.raises(Problem, match="did not accept the key that EC2 Instance Connect has just sent for user") as caught:
            line.run(f"{BASH}touch '{root}/sent'\n", 20)
        assert "`box.user=...`" in caught.value.hint
    assert len(set(sent)) == 2 and not (root / "sent").exists()


def test_the_private_key_is_never_on_a_disk(line, state, monkeypatch):
    line.run(BASH, 20)
    own = [path for path in state.rglob("*") if path.is_file() and "ssh_host" not in path.name]
    assert not [path for path in own if b"PRIVATE KEY" in path.read_bytes()]


def test_a_sudo_that_asks_for_a_password_is_a_sentence(mine, line, root):
    program = root / "usr/bin/sudo"
    usual = program.read_text()
    program.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    try:
        with pytest.raises(Problem, match=f"user `{current_user()}` of {mine} may not use sudo without a password") as caught:
            line.run(f"{BASH}touch '{root}/sent'\n", 20)
    finally:
        program.write_text(usual)
    assert "sudo: a password is required" in caught.value.what and "`box.user=...`" in caught.value.hint
    assert not (root / "sent").exists()


def cut_once_it_runs(state, mark: Path, action) -> threading.Thread:
    def watch():
        while not mark.exists():
            time.sleep(0.02)
        action()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_cut_line_is_taken_up_again_and_one_script_waits_for_the_other(line, state, root, mine, capfd):
    """As all scripts do: a lock, then a look at what is done already."""
    script = f"""exec 7>'{root}/tmp/lock'; flock 7
if [ -e '{root}/tmp/done' ]; then echo '@@ changed=no'; exit 0; fi
echo one >>'{root}/tmp/begun'; sleep 2; touch '{root}/tmp/done'; echo '@@ changed=yes'
"""
    thread = cut_once_it_runs(state, root / "tmp/begun", lambda: world.fault(state, "ssh-cut", instance=mine))
    done = line.run(BASH + script, 30, "setup")
    thread.join()
    assert (done.code, done.facts) == (0, {"changed": "no"})
    assert (root / "tmp/begun").read_text() == "one\n"
    assert "the connection to the box was lost; trying again" in capfd.readouterr().err


def test_a_script_that_fails_is_no_lost_connection(line, capfd):
    assert line.run(f"{BASH}exit 255\n", 20).code == 255
    assert "lost" not in capfd.readouterr().err


def test_a_line_that_stays_cut_is_told_with_the_script_that_may_go_on(aws, mine, line, name, state, root):
    def action():
        ssh_ingress.close_port(aws, mine, name)
        world.fault(state, "ssh-cut", instance=mine)

    thread = cut_once_it_runs(state, root / "tmp/long", action)
    with pytest.raises(Problem, match=f"{mine} takes no connection at 127.0.0.1:") as caught:
        line.run(f"{BASH}touch '{root}/tmp/long'; sleep 5\n", 30, "train")
    thread.join()
    assert "`inv up -- box.ssh=true`" in caught.value.hint and caught.value.reason == "unreachable"
    ssh_ingress.open_port(aws, mine, name, "auto")


def test_the_limit_ends_the_script_and_what_it_started_but_not_what_left_its_group(line, root):
    script = f"setsid sh -c 'sleep 4; touch {root}/tmp/left' </dev/null >/dev/null 2>&1 &\nsleep 60; touch '{root}/tmp/late'\n"
    begun = time.monotonic()
    with pytest.raises(Problem, match="a script took longer than its 2 s"):
        line.run(BASH + script, 2)
    assert time.monotonic() - begun < 10
    deadline = time.monotonic() + 900
    while not (root / "tmp/left").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not (root / "tmp/late").exists()


def test_nobody_else_comes_in(aws, mine, line, name):
    """Without a rule for our address there is no answer at all."""
    ssh_ingress.close_port(aws, mine, name)
    with pytest.raises(Problem, match="takes no connection"):
        line.run(BASH, 20)
    ssh_ingress.open_port(aws, mine, name, "auto")
    assert line.run(f"{BASH}echo in\n", 20).stdout == "in\n"


def test_an_emulated_cloud_never_connects_to_a_real_address(line, monkeypatch):
    monkeypatch.delenv("FABRIC_SSH_CONFIG_PATH")
    with pytest.raises(Problem, match="would connect to [0-9.]+"):
        line.run(BASH, 20)
