"""Run Command through a real agent process: what the open source agent does is what is promised here."""

import ast
import os
import re
import time
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from twin import world
from twin.box import processes
from twin.box.boxes import is_agent

AGENT = os.environ.get("TWIN_AGENT")  # another agent's program, which is held to the same


def running(box) -> list[str]:
    return [" ".join(processes.words(process)) for process in processes.of(box.root)]


def test_gives_exit_code_and_both_streams(box):
    invocation = box.run("echo out", "echo err >&2", "exit 3")
    assert (invocation["Status"], invocation["ResponseCode"]) == ("Failed", 3)
    assert invocation["StandardOutputContent"] == "out\n"
    assert invocation["StandardErrorContent"] == "err\nfailed to run commands: exit status 3"


def test_success_adds_nothing_to_stderr(box):
    invocation = box.run("echo fine")
    assert (invocation["StatusDetails"], invocation["ResponseCode"], invocation["StandardErrorContent"]) == ("Success", 0, "")


def test_honours_the_first_line_and_is_plain_sh_without_one(box):
    assert box.run("#!/bin/bash", 'echo "${BASH_VERSION:+bash}"')["StandardOutputContent"] == "bash\n"
    assert box.run("[ -p /dev/stdout ] && [ ! -t 0 ] && cat && echo end")["StandardOutputContent"] == "end\n"


def test_environment_is_that_of_the_agent_service(box):
    stdout = box.run('env; echo; ls -l "$0"; echo ${#0}')["StandardOutputContent"]
    variables = dict(line.split("=", 1) for line in stdout.split("\n\n")[0].splitlines())
    assert not {"HOME", "USER", "SHELL", "TERM", "HF_TOKEN", "VIRTUAL_ENV"} & set(variables)
    assert variables["AWS_SSM_PLATFORM_NAME"] and variables["AWS_SSM_PLATFORM_VERSION"]
    assert variables["AWS_SSM_INSTANCE_ID"] == box.instance
    assert variables["AWS_SSM_REGION_NAME"] == "us-east-1"
    assert variables["BOX_ROOT"] == str(box.root)
    assert f"/{variables['SSM_COMMAND_ID']}/awsrunShellScript/0.awsrunShellScript/_script.sh" in stdout
    assert "-rwx------" in stdout


def test_output_is_empty_until_the_end_then_cut_with_a_marker(box, until):
    command = box.send("printf %030000d 0; printf %09000d 1 >&2", box.until_released("looked"))
    until(lambda: box.status(command) == "InProgress")
    assert box.invocation(command)["StandardOutputContent"] == ""
    assert box.invocation(command)["ResponseCode"] == -1
    box.release("looked")
    invocation = box.ended(command)
    assert len(invocation["StandardOutputContent"]) == 24_000 and invocation["StandardOutputContent"].endswith("0--output truncated--")
    assert invocation["StandardErrorContent"] == "0" * 8_000


def test_stderr_is_cut_with_a_marker_where_the_agent_cuts_it(box):
    """At 24,000 as stdout; what the service shows of it ends before that."""
    invocation = box.run("printf %023999d 0; printf %023999d 0 >&2")
    assert invocation["StandardOutputContent"] == "0" * 23_999 and invocation["StandardErrorContent"] == "0" * 8_000
    assert "truncated" not in box.run("printf %030000d 1 >&2")["StandardErrorContent"]


def test_what_comes_back_is_counted_in_bytes(box):
    """An odd number of them before the cut: the last one of two-byte letters is half."""
    stdout = box.run("#!/bin/bash", "printf x; for n in {1..15000}; do printf ü; done")["StandardOutputContent"]
    assert stdout == "x" + "ü" * 11_989 + "\N{REPLACEMENT CHARACTER}--output truncated--"


def test_a_background_child_that_inherits_stdout_holds_the_command(box):
    late = box.root / "tmp/late"
    box.run('(sleep 1.5; touch "$BOX_ROOT/tmp/late") & echo started')
    assert late.exists()
    late.unlink()
    box.run('(sleep 5; touch "$BOX_ROOT/tmp/late") >/dev/null 2>&1 & echo started')
    assert not late.exists()


@pytest.mark.parametrize("end", ["timeout", "cancel"])
def test_a_child_that_moved_away_with_stdout_holds_nothing_after_timeout_or_cancel(box, until, end):
    begun = time.monotonic()
    command = box.send("echo begun; setsid sleep 66.5 & wait", executionTimeout="5")
    if end == "cancel":
        until(lambda: any("sleep 66.5" in one for one in running(box)))
        box.cloud.ssm.cancel_command(CommandId=command)
    invocation = box.ended(command)
    assert (invocation["Status"], invocation["ResponseCode"]) == ({"timeout": "TimedOut", "cancel": "Cancelled"}[end], 137)
    assert any("sleep 66.5" in one for one in running(box)) and time.monotonic() - begun < 60
    for process in processes.called(box.root, "sleep 66.5"):
        process.kill()


@pytest.mark.slow
def test_timeout_kills_the_group_without_traps_and_spares_what_setsid_moved(box, until):
    script = """trap 'touch "$BOX_ROOT/trapped"' TERM EXIT; setsid sleep 61.5 >/dev/null 2>&1 </dev/null & sleep 62.5"""
    invocation = box.run(script, executionTimeout="5")
    assert (invocation["Status"], invocation["StatusDetails"], invocation["ResponseCode"]) == ("TimedOut", "Execution Timed Out", 137)
    assert not (box.root / "trapped").exists()
    assert "sleep 61.5" in running(box) and "sleep 62.5" not in running(box)


def test_cancel_kills_a_running_command(box, until):
    command = box.send("echo begun; sleep 63.5")
    until(lambda: box.status(command) == "InProgress")
    box.cloud.ssm.cancel_command(CommandId=command)
    invocation = box.ended(command)
    assert (invocation["Status"], invocation["ResponseCode"]) == ("Cancelled", 137)
    until(lambda: "sleep 63.5" not in running(box))


def test_five_commands_run_at_once_and_the_sixth_waits(box, until):
    held = [box.send("sleep 64.5") for _ in range(5)]
    until(lambda: all(box.status(command) == "InProgress" for command in held))
    sixth = box.send('touch "$BOX_ROOT/tmp/sixth"')
    until(lambda: box.status(sixth) == "InProgress")
    time.sleep(0.6)
    assert not (box.root / "tmp/sixth").exists()
    for command in held:
        box.cloud.ssm.cancel_command(CommandId=command)
    assert box.ended(sixth)["Status"] == "Success" and (box.root / "tmp/sixth").exists()


def test_a_new_command_does_not_show_at_once(box):
    command = box.send("true")
    assert box.invocation(command) is None
    assert box.cloud.ssm.list_command_invocations(CommandId=command)["CommandInvocations"] == []
    assert box.ended(command)["Status"] == "Success"


def test_lists_commands_with_their_comment_and_parameters(box):
    arguments = {"DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true"]}, "Comment": "run-17"}
    sent = box.cloud.ssm.send_command(InstanceIds=[box.instance], **arguments)["Command"]
    box.ended(sent["CommandId"])
    (listed,) = [one for one in box.cloud.ssm.list_commands()["Commands"] if one["Comment"] == "run-17"]
    assert listed["Parameters"] == {"commands": ["true"]} and listed["Status"] == "Success"
    (listed,) = box.cloud.ssm.list_command_invocations(CommandId=sent["CommandId"], Details=True)["CommandInvocations"]
    assert listed["CommandPlugins"][0]["ResponseCode"] == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"InstanceIds": ["i-0123456789abcdef0"]}, "InvalidInstanceId"),
        ({"DocumentName": "AWS-RunPowerShellScript"}, "InvalidDocument"),
        ({"Parameters": {"command": ["true"]}}, "InvalidParameters"),
        ({"Parameters": {"commands": ["true"], "executionTimeout": ["172801"]}}, "InvalidParameters"),
        ({"Parameters": {"commands": ["#" * 66_000]}}, "MaxDocumentSizeExceeded"),
        ({"InstanceIds": [f"i-{number:017x}" for number in range(51)]}, "ValidationException"),
    ],
)
def test_refuses_as_the_service_does(box, change, code):
    request = {"InstanceIds": [box.instance], "DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true"]}} | change
    with pytest.raises(ClientError) as caught:
        box.cloud.ssm.send_command(**request)
    assert caught.value.response["Error"]["Code"] == code
    if code == "InvalidInstanceId":
        assert "Instances [[i-0123456789abcdef0]] not in a valid state for account" in str(caught.value)


def test_a_working_directory_is_used_and_a_missing_one_fails(box):
    assert box.run("pwd", workingDirectory=str(box.root / "mnt"))["StandardOutputContent"] == f"{box.root}/mnt\n"
    invocation = box.run("pwd", workingDirectory="/no/such/place")
    assert (invocation["Status"], invocation["ResponseCode"]) == ("Failed", 1)
    assert invocation["StandardErrorContent"] == "failed to run commands: chdir /no/such/place: no such file or directory"


def test_a_relative_working_directory_is_ignored(box):
    assert box.run("pwd", workingDirectory="mnt")["StandardOutputContent"] == box.run("pwd")["StandardOutputContent"]


def test_a_script_that_exits_137_has_timed_out_at_once(box):
    """As one does whose last child the kernel killed for want of memory."""
    begun = time.monotonic()
    invocation = box.run("echo out; echo err >&2", "sh -c 'kill -KILL $$'", executionTimeout="600")
    assert (invocation["Status"], invocation["StatusDetails"], invocation["ResponseCode"]) == ("TimedOut", "Execution Timed Out", 137)
    assert invocation["StandardOutputContent"] == "out\n" and "failed to run commands" not in invocation["StandardErrorContent"]
    assert time.monotonic() - begun < 60


def test_a_script_that_dies_by_a_signal_itself_has_no_code(box):
    invocation = box.run("echo out; kill -KILL 0")  # its whole group
    assert (invocation["Status"], invocation["ResponseCode"]) == ("Failed", -1)
    assert invocation["StandardErrorContent"] == "failed to run commands: signal: killed"


@pytest.mark.parametrize(("code", "status"), [(168, "Success"), (169, "Failed")])
def test_exit_168_is_a_success_and_169_a_failure_and_both_say_their_code(box, code, status):
    invocation = box.run(f"exit {code}")
    assert (invocation["Status"], invocation["ResponseCode"]) == (status, code)
    assert invocation["StandardErrorContent"] == f"failed to run commands: exit status {code}"


def test_a_parameters_name_in_a_script_is_replaced_by_its_value(box):
    box.cloud.ssm.put_parameter(Name="/things/word", Value="twice two", Type="String")
    assert box.run("echo '{{ssm:/things/word}}, {{ ssm:/things/word }}'")["StandardOutputContent"] == "twice two, twice two\n"
    assert box.run("echo '{{ other }} {{.Name}}'")["StandardOutputContent"] == "{{ other }} {{.Name}}\n"


def test_a_script_that_names_no_parameter_that_there_is_fails_and_never_runs(box):
    invocation = box.run('touch "$BOX_ROOT/tmp/ran"; echo {{ssm:/no/such/parameter}}')
    assert (invocation["Status"], invocation["StandardOutputContent"], invocation["StandardErrorContent"]) == ("Failed", "", "")
    assert not (box.root / "tmp/ran").exists()
    assert box.run("echo and on")["StandardOutputContent"] == "and on\n"  # nothing holds the commands after it up


@pytest.fixture
def machine(cloud):
    """A box that the test may break."""
    made = cloud.box()
    yield made
    cloud.ec2.terminate_instances(InstanceIds=[made.instance])


def agent_of(box) -> list[psutil.Process]:
    """Its core, and the worker that this keeps."""
    return [one for one in processes.of(box.root) if is_agent(one)]


def document_workers(box) -> list[psutil.Process]:
    return [
        one for one in processes.of(box.root) if {"--document", "ssm-document-worker"} & {Path(word).name for word in processes.words(one)}
    ]


def test_an_execution_timeout_below_five_seconds_silently_becomes_an_hour(box):
    assert box.run("sleep 2.2; echo whole", executionTimeout="1")["StandardOutputContent"] == "whole\n"


def test_starts_in_the_directory_of_the_agents_unit(box):
    assert box.run("pwd")["StandardOutputContent"] == f"{box.root}/usr/bin\n"


def test_a_cancelled_command_that_waits_for_its_turn_runs_when_the_next_agent_starts(machine, until):
    """Nobody hears of it until then: it stays Cancelling."""
    held = [machine.send("sleep 60.5") for _ in range(5)]
    until(lambda: all(machine.status(command) == "InProgress" for command in held))
    sixth = machine.send('touch "$BOX_ROOT/root/sixth"')
    until(lambda: machine.status(sixth) == "InProgress")
    machine.cloud.ssm.cancel_command(CommandId=sixth)
    for command in held:
        machine.cloud.ssm.cancel_command(CommandId=command)
    assert all(machine.ended(command)["Status"] == "Cancelled" for command in held)
    assert machine.run("true")["Status"] == "Success"
    assert machine.status(sixth) == "Cancelling" and not (machine.root / "root/sixth").exists()
    world.fault(machine.cloud.state, "agent-restarts", instance=machine.instance)
    assert machine.ended(sixth)["Status"] == "Success" and (machine.root / "root/sixth").exists()


@pytest.mark.slow
def test_with_more_than_ten_commands_nothing_is_fetched_not_even_a_cancel(machine, until):
    held = [machine.send(machine.until_released("on")) for _ in range(10)]
    until(lambda: all(machine.status(command) == "InProgress" for command in held))
    eleventh = machine.send("true")
    time.sleep(3)
    assert machine.status(eleventh) == "Pending"
    machine.cloud.ssm.cancel_command(CommandId=held[0])
    time.sleep(3)
    assert machine.status(held[0]) == "Cancelling"
    machine.release("on")
    assert [machine.ended(command)["Status"] for command in [*held, eleventh]] == ["Success"] * 11


def test_the_script_stays_on_the_box(box):
    """So a secret in a command would outlive it there, as well as in the command's history."""
    command = box.ended(box.send("echo planted-in-a-script"))["CommandId"]
    folder = box.root / f"var/lib/amazon/ssm/{box.instance}/document/orchestration/{command}/awsrunShellScript/0.awsrunShellScript"
    assert "planted-in-a-script" in (folder / "_script.sh").read_text()


def test_a_script_outlives_its_agent_and_the_next_agent_delivers_its_end(machine, until):
    command = machine.send("echo begun", machine.until_released("restarted"), 'echo "$SSM_COMMAND_ID"')
    until(lambda: machine.status(command) == "InProgress")
    old = {one.pid for one in agent_of(machine)}
    world.fault(machine.cloud.state, "agent-restarts", instance=machine.instance)
    machine.release("restarted")
    invocation = machine.ended(command)
    assert invocation["StandardOutputContent"] == f"begun\n{command}\n" and invocation["ResponseCode"] == 0
    assert not old & {one.pid for one in agent_of(machine)}


def rebooted(box, until) -> None:
    box.cloud.ec2.reboot_instances(InstanceIds=[box.instance])


def lost_power(box, until) -> None:
    box.cloud.ec2.stop_instances(InstanceIds=[box.instance])
    until(lambda: box.cloud.instance_state(box.instance) == "stopped")
    box.cloud.ec2.start_instances(InstanceIds=[box.instance])


def lost_its_worker(box, until) -> None:
    for process in document_workers(box):
        process.kill()


@pytest.mark.parametrize("cut_off", [rebooted, lost_power, lost_its_worker])
def test_a_script_that_was_cut_off_never_runs_again_and_leaves_no_output(machine, until, cut_off):
    command = machine.send('echo run | tee -a "$BOX_ROOT/root/runs"; [ "$(wc -l <"$BOX_ROOT/root/runs")" -gt 1 ] || sleep 60.6')
    until(lambda: (machine.root / "root/runs").exists())
    cut_off(machine, until)
    invocation = machine.ended(command)
    assert (invocation["Status"], invocation["StatusDetails"], invocation["ResponseCode"]) == ("Failed", "Failed", 1)
    assert invocation["StandardOutputContent"] == invocation["StandardErrorContent"] == ""
    assert (machine.root / "root/runs").read_text() == "run\n"
    assert machine.run("echo and on")["StandardOutputContent"] == "and on\n"


def test_the_worker_of_an_agent_whose_core_was_killed_goes_on_taking_commands(machine):
    core = min(agent_of(machine), key=lambda one: one.create_time())
    assert len(agent_of(machine)) == 2
    core.kill()
    assert machine.run("echo all the same")["StandardOutputContent"] == "all the same\n"


@pytest.mark.skipif(bool(AGENT), reason="what another agent makes of a second start is its own business")
def test_a_second_start_of_the_agent_takes_the_place_of_the_first(machine, until):
    first = {one.pid for one in agent_of(machine)}
    world.ask(machine.cloud.state, "start_agent", instance=machine.instance)
    until(lambda: len(agent_of(machine)) == 2 and not first & {one.pid for one in agent_of(machine)})
    assert machine.run('echo x >>"$BOX_ROOT/root/once"; cat "$BOX_ROOT/root/once"')["StandardOutputContent"] == "x\n"


def test_a_reply_that_did_not_get_through_is_sent_again(machine, until):
    """InProgress and the end, and each as often as the client of the agent tries by itself."""
    world.fault(machine.cloud.state, "server-error", only="ec2messages.SendReply", count=8 if AGENT else 2)
    assert machine.run("echo at last")["StandardOutputContent"] == "at last\n"


def test_an_agent_without_a_role_tries_again_later(cloud, until):
    instance = cloud.launch(IamInstanceProfile={})
    until(lambda: "not registered" in log_of(cloud, instance) or AGENT)
    cloud.ec2.associate_iam_instance_profile(IamInstanceProfile={"Name": "box"}, InstanceId=instance)
    assert instance not in cloud.agents()  # it does not see it at once
    until(lambda: instance in cloud.agents())
    cloud.ec2.terminate_instances(InstanceIds=[instance])


def log_of(cloud, instance: str) -> str:
    return (cloud.state / "boxes" / instance / "root/var/log/amazon-ssm-agent.log").read_text()


def test_exit_194_reboots_the_box_and_runs_the_script_again(machine):
    script = """echo "$(cat "$BOX_ROOT/run/before" 2>/dev/null)" >>"$BOX_ROOT/root/boots"
    mkdir -p "$BOX_ROOT/run"; echo same >"$BOX_ROOT/run/before"
    [ "$(wc -l <"$BOX_ROOT/root/boots")" -gt 1 ] || echo before
    [ "$(wc -l <"$BOX_ROOT/root/boots")" -gt 1 ] || exit 194
    echo after the reboot"""
    invocation = machine.run(script)
    assert (invocation["Status"], invocation["StandardOutputContent"]) == ("Success", "before\nafter the reboot\n")  # of all attempts
    assert (machine.root / "root/boots").read_text() == "\n\n"  # /run was empty each time


def test_a_shutdown_on_the_box_stops_the_instance(machine, until):
    machine.send("shutdown -h now; sleep 60.7")
    until(lambda: machine.cloud.instance_state(machine.instance) == "stopped")


def test_output_goes_to_s3_when_the_command_has_ended(box):
    arguments = {"DocumentName": "AWS-RunShellScript", "OutputS3BucketName": "things", "OutputS3KeyPrefix": "out/put"}
    parameters = {"commands": ["printf %030000d 0; echo problem >&2"]}
    sent = box.cloud.ssm.send_command(InstanceIds=[box.instance], Parameters=parameters, **arguments)["Command"]["CommandId"]
    invocation = box.ended(sent)
    key = f"out/put/{sent}/{box.instance}/awsrunShellScript/0.awsrunShellScript/stdout"
    assert len(box.cloud.s3.get_object(Bucket="things", Key=key)["Body"].read()) == 30_000  # whole, not cut
    assert invocation["StandardOutputUrl"].endswith(f"/things/{key}")
    assert box.cloud.s3.get_object(Bucket="things", Key=key[:-6] + "stderr")["Body"].read() == b"problem\n"


def test_output_streams_to_cloudwatch_while_the_command_runs(box, until):
    wanted = {"CloudWatchOutputEnabled": True, "CloudWatchLogGroupName": "/commands"}
    parameters = {"commands": ["echo early", box.until_released("streamed"), "echo late"]}
    request = {"InstanceIds": [box.instance], "DocumentName": "AWS-RunShellScript", "Parameters": parameters}
    sent = box.cloud.ssm.send_command(**request, CloudWatchOutputConfig=wanted)["Command"]["CommandId"]
    stream = {"logGroupName": "/commands", "logStreamName": f"{sent}/{box.instance}/aws-runShellScript/stdout"}

    def messages() -> list[str]:
        try:
            return [event["message"] for event in box.cloud.logs.get_log_events(**stream, startFromHead=True)["events"]]
        except box.cloud.logs.exceptions.ResourceNotFoundException:
            return []

    until(lambda: messages() == ["early\n"])  # the line's end too
    assert box.status(sent) == "InProgress" and box.invocation(sent)["StandardOutputContent"] == ""
    box.release("streamed")
    box.ended(sent)
    assert messages() == ["early\n", "late\n"]


@pytest.fixture
def slow(tmp_path, monkeypatch, another, account, until):
    """A box whose agent takes its time, as the real one does."""
    monkeypatch.setenv("TWIN_AGENT_SPEED", "1")
    world.start(tmp_path, {}, account)
    yield another(tmp_path).box()
    world.stop(tmp_path)


@pytest.mark.slow
def test_the_agent_pauses_after_a_quick_poll_and_reads_output_slowly(slow):
    """The first command is fetched by a poll that had only just begun: the next comes 2 to 2.5 s later."""
    assert slow.run("true")["Status"] == "Success"
    sent = time.monotonic()
    first, second = slow.send("true"), slow.send("head -c 2000000 /dev/zero | tr '\\0' x")
    slow.ended(first)
    invocation = slow.ended(second)
    assert time.monotonic() - sent > 2 + 2_000_000 / 500_000
    assert invocation["StandardOutputContent"].startswith("xxx")


@pytest.mark.parametrize(("name", "least"), [("RUN_COMMAND", 50), ("SESSIONS", 13)])
def test_every_rule_of_the_table_has_its_source_and_a_test_that_exists(name, least):
    here = Path(__file__).parent
    page = (Path(world.__file__).parent / f"aws/ssm/{name}.md").read_text()
    rows = [line.split("|")[1:-1] for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(number) for number, *_ in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= least
    known = {name for path in here.parents[1].rglob("test_*.py") for name in functions(path)}
    for _, rule, source, test in rows:
        assert rule.strip() and source.strip()
        assert test.strip().strip("`") in known, test


def functions(path: Path) -> list[str]:
    return [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
