"""Starting, asking and stopping worlds."""

import json
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest

from twin import world
from twin.box import processes


@pytest.fixture
def state(tmp_path):
    yield tmp_path / "state folder"
    world.stop(tmp_path / "state folder")


def test_start_of_a_running_world_changes_nothing(cloud, account):
    details = world.read(cloud.state)
    world.start(cloud.state, {}, account | {"bucket": "others"})
    assert world.read(cloud.state) == details
    names = [bucket["Name"] for bucket in cloud.s3.list_buckets()["Buckets"]]
    assert "things" in names and "others" not in names


def test_two_worlds_side_by_side_know_nothing_of_each_other(cloud, box, state, account, another):
    world.start(state, {}, account | {"bucket": "elsewhere"})
    there = another(state)
    assert [bucket["Name"] for bucket in there.s3.list_buckets()["Buckets"]] == ["elsewhere"]
    assert box.instance in cloud.agents() and there.agents() == {}
    world.stop(state)
    assert box.run("echo still here")["Status"] == "Success"


def test_a_world_that_died_is_cleared_away_and_replaced_then_stop_leaves_no_process(state, account, another, until):
    world.start(state, {}, account)
    box = another(state).box()
    box.run("setsid sleep 69.5 >/dev/null 2>&1 </dev/null &")
    psutil.Process(world.status(state)["pid"]).kill()
    until(lambda: world.status(state) is None)
    assert {"python", "sleep"} <= {one.name() for one in processes.of(box.root)}
    world.start(state, {}, account)
    assert processes.of(box.root) == [] and another(state).agents() == {}
    box, pid = another(state).box(), world.status(state)["pid"]
    box.run("setsid sleep 69.5 >/dev/null 2>&1 </dev/null &")
    world.stop(state)
    world.stop(state)
    assert processes.of(box.root) == [] and not psutil.pid_exists(pid)
    assert world.status(state) is None and not box.root.exists()
    assert (state / "journal.jsonl").exists()


def test_stop_spares_a_process_that_got_the_pid_of_a_dead_world(state):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        state.mkdir(parents=True)
        (state / "state.json").write_text(json.dumps({"pid": bystander.pid, "started": time.time() - 3600}))
        assert world.status(state) is None
        world.stop(state)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_failed_start_shows_the_end_of_the_log(state, account):
    with pytest.raises(world.WorldError, match="Invalid bucket name") as caught:
        world.start(state, {}, account | {"bucket": "No Such Name"})
    assert "exit code 1" in str(caught.value)
    assert world.status(state) is None


def test_environment_shuts_out_the_users_own(cloud, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.com")
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    environment = world.environment(cloud.state)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_USE_FIPS_ENDPOINT", "HF_HUB_OFFLINE", "AWS_SESSION_TOKEN", "HF_TOKEN_PATH"):
        assert environment[name] is None
    assert environment["AWS_ENDPOINT_URL"] == world.status(cloud.state)["aws"]
    assert environment["NO_PROXY"] == environment["no_proxy"] == "127.0.0.1"
    assert world.client(cloud.state, "s3").list_buckets()["Buckets"][0]["Name"] == "things"
    assert oct((cloud.state / "state.json").stat().st_mode)[-3:] == "600"


def test_environment_of_nothing_is_refused(state):
    with pytest.raises(world.WorldError, match="no emulated world runs in"):
        world.environment(state)


def test_hub_answers_and_is_in_the_journal(cloud):
    environment = world.environment(cloud.state)
    headers = {"Authorization": f"Bearer {environment['HF_TOKEN']}"}
    request = urllib.request.Request(environment["HF_ENDPOINT"] + "/api/whoami-v2", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    assert opener.open(request).status == 200
    assert '"service": "hub", "operation": "GET", "target": "/api/whoami-v2", "status": 200' in cloud.journal()


def test_background_process_listens_on_loopback_only(cloud):
    listening = [one.laddr.ip for one in psutil.Process(world.status(cloud.state)["pid"]).net_connections() if one.status == "LISTEN"]
    assert len(listening) >= 2 and set(listening) == {"127.0.0.1"}  # AWS, the Hub, and port 22 of each box
