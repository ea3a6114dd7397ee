"""Another agent's program in the place of the twin's own: how it is started, and how it finds AWS's own names.

With TWIN_AGENT=/path/to/amazon-ssm-agent in the environment test_run_command.py holds that program to the same rules.
"""

import os
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from twin import world
from twin.aws.gateway import proxy
from twin.box import processes, real_agent
from twin.box.boxes import is_agent

OWN = Path(real_agent.__file__).parent / "agent"
# Finds out who it is as the real one does, reads its configuration where that does, and is the twin's own agent from there on.
STAND_IN = f"""#!/bin/sh
set -e
grep -q '"Endpoint": "http://127.0.0.1:' /etc/amazon/ssm/amazon-ssm-agent.json
[ "$0 $(command -v ssm-document-worker)" = "/usr/bin/amazon-ssm-agent /usr/bin/ssm-document-worker" ]
at=$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest
token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$at/api/token")
ask() {{ curl -sf -H "X-aws-ec2-metadata-token: $token" "$at/meta-data/$1"; }}
instance=$(ask instance-id)
role=$(ask iam/security-credentials/)
export TWIN_AGENT_KEY=$(ask "iam/security-credentials/$role" | grep -o '"AccessKeyId": *"[^"]*"' | cut -d '"' -f 4)
exec {sys.executable} -E -s -S '{OWN}' "$instance"
"""


@pytest.fixture
def attached(tmp_path, monkeypatch, another, account):
    """A world whose boxes have a program of ours in the place of their agent."""
    if reason := real_agent.missing():
        pytest.skip(reason)
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("amazon-ssm-agent", "ssm-document-worker"):
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("TWIN_AGENT", str(folder / "amazon-ssm-agent"))
    world.start(tmp_path / "a world", {}, account)
    yield another(tmp_path / "a world")
    world.stop(tmp_path / "a world")


@pytest.mark.system
def test_another_agents_program_is_started_where_it_looks_for_what_is_its_own(attached, until):
    box = attached.box()
    command = box.send(
        box.until_released("on"), "ls /var/lib/amazon/ssm; ps -e -o args= | grep -c [/]twin/box/agent; readlink -f /proc/1/exe"
    )
    until(lambda: box.status(command) == "InProgress")
    world.fault(attached.state, "agent-restarts", instance=box.instance)
    until(lambda: len([one for one in processes.of(box.root) if is_agent(one)]) == 2)
    box.release("on")
    seen, others, first = box.ended(command)["StandardOutputContent"].splitlines()
    assert seen == box.instance and (box.root / "var/lib/amazon/ssm" / seen).is_dir()
    assert int(others) == 3  # of this box: core, worker, and the process of this document
    assert Path(first).name == "bash"
    assert not Path("/var/lib/amazon/ssm").joinpath(box.instance).exists()  # nothing of it is outside


@pytest.mark.system
def test_what_the_agent_turns_off_is_the_box(attached, until):
    box = attached.box()
    invocation = box.run('[ -e "$BOX_ROOT/root/once" ] || { touch "$BOX_ROOT/root/once"; /sbin/shutdown -r now; sleep 60.9; }; echo again')
    assert (invocation["Status"], invocation["ResponseCode"]) == ("Failed", 1)  # it was cut off, and this machine still runs
    assert box.run("echo and on")["StandardOutputContent"] == "and on\n"


def test_another_agent_is_refused_where_it_cannot_be_had(tmp_path, monkeypatch, account):
    monkeypatch.setenv("TWIN_AGENT", str(tmp_path / "nothing"))
    with pytest.raises(world.WorldError, match=r"TWIN_AGENT names .*nothing, which is no program"):
        world.start(tmp_path / "a world", {}, account)
    monkeypatch.setenv("TWIN_AGENT", shutil.which("true"))
    with pytest.raises(world.WorldError, match="TWIN_AGENT is for boxes of the grade `process`"):
        world.start(tmp_path / "a world", {}, account, grade="machine")


def test_the_agent_that_was_named_is_the_one_that_answers(cloud, box):
    if "TWIN_AGENT" not in os.environ:
        pytest.skip("TWIN_AGENT names no amazon-ssm-agent: it is no package of any registry that this is built from")
    version = subprocess.run([os.environ["TWIN_AGENT"], "-version"], capture_output=True, text=True).stdout.split()[-1]
    assert cloud.agents()[box.instance]["AgentVersion"] == version


@pytest.fixture(scope="module")
def way(cloud, tmp_path_factory):
    return proxy.Proxy(cloud.ssm.meta.endpoint_url, "us-east-1", tmp_path_factory.mktemp("way") / "names.pem")


def asked(way, url: str, body: bytes | None = None, method: str = "GET", **headers: str):
    """The answer of a client that trusts the certificate, and goes by the proxy as Go's http.ProxyFromEnvironment does."""
    proxies = urllib.request.ProxyHandler({"http": way.address, "https": way.address})
    context = ssl.create_default_context(cafile=way.certificate)
    opener = urllib.request.build_opener(proxies, urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(url, body, headers, method=method)
    return opener.open(request, timeout=60)


def signed(cloud, service: str) -> str:
    scope = f"{world.running(cloud.state)['keys']['owner']}/20260101/us-east-1/{service}/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none"


def test_awss_own_names_lead_to_the_world(way, cloud):
    headers = {"X-Amz-Target": "Logs_20140328.CreateLogGroup", "Content-Type": "application/x-amz-json-1.1"}
    headers["Authorization"] = signed(cloud, "logs")
    with asked(way, "https://logs.us-east-1.amazonaws.com/", b'{"logGroupName": "/by/name"}', "POST", **headers) as answer:
        assert answer.status == 200
    assert cloud.logs.describe_log_groups(logGroupNamePrefix="/by/name")["logGroups"]


@pytest.mark.parametrize(
    "host", ["https://things.s3.us-east-1.amazonaws.com", "http://things.s3.amazonaws.com", "http://things.127.0.0.1:1"]
)
def test_a_bucket_in_a_hosts_name_is_that_bucket(way, cloud, host):
    scope = signed(cloud, "s3")
    with asked(way, f"{host}/by/name", b"content", "PUT", **{"Authorization": scope, "Content-Type": "text/plain"}) as answer:
        assert answer.status == 200
    assert cloud.s3.get_object(Bucket="things", Key="by/name")["Body"].read() == b"content"
    with asked(way, f"{host}/by/name", None, "HEAD", Authorization=scope) as answer:
        assert answer.headers["Content-Length"] == "7"


def test_a_buckets_region_is_told_to_whom_asks_for_it_by_name(way):
    """As the agent does before it uploads (s3util.go), without a signature."""
    with pytest.raises(urllib.error.HTTPError, match="403") as denied:
        asked(way, "http://things.s3.us-east-1.amazonaws.com", None, "HEAD")
    assert denied.value.headers["x-amz-bucket-region"] == "us-east-1"


def test_another_name_is_not_spoken_for(way):
    with pytest.raises(urllib.error.URLError, match="certificate"):
        asked(way, "https://example.com/")
