"""Run Command through a real agent process: what the open source agent does is what is promised here."""

import ast
import time
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from twin import processes, world


def running(box) -> list[str]:
    return [" ".join(processes.words(process)) for process in processes.of(box.root)]


def test_gives_exit_code_and_both_streams(box):
    found = box.run("echo out", "echo err >&2", "exit 3")
    assert (found["Status"], found["ResponseCode"]) == ("Failed", 3)
    assert found["StandardOutputContent"] == "out\n"
    assert found["StandardErrorContent"] == "err\nfailed to run commands: exit status 3"


def test_success_adds_nothing_to_stderr(box):
    found = box.run("echo fine")
    assert (found["StatusDetails"], found["ResponseCode"], found["StandardErrorContent"]) == ("Success", 0, "")


def test_honours_the_first_line_and_is_plain_sh_without_one(box):
    assert box.run("#!/bin/bash", 'echo "${BASH_VERSION:+bash}"')["StandardOutputContent"] == "bash\n"
    assert box.run("[ -p /dev/stdout ] && [ ! -t 0 ] && cat && echo end")["StandardOutputContent"] == "end\n"


def test_environment_is_that_of_the_agent_service(box):
    found = box.run('env; echo; ls -l "$0"; echo ${#0}')["StandardOutputContent"]
    variables = dict(line.split("=", 1) for line in found.split("\n\n")[0].splitlines())
    assert not {"HOME", "USER", "SHELL", "TERM", "HF_TOKEN", "VIRTUAL_ENV"} & set(variables)
    assert variables["AWS_SSM_INSTANCE_ID"] == box.instance
    assert variables["AWS_SSM_REGION_NAME"] == "us-east-1"
    assert variables["BOX_ROOT"] == str(box.root)
    assert f"/{variables['SSM_COMMAND_ID']}/awsrunShellScript/0.awsrunShellScript/_script.sh" in found
    assert "-rwx------" in found


def test_output_is_empty_until_the_end_then_cut_with_a_marker(box, until):
    command = box.send("printf %030000d 0; printf %09000d 1 >&2; sleep 1")
    until(lambda: box.status(command) == "InProgress")
    assert box.invocation(command)["StandardOutputContent"] == ""
    assert box.invocation(command)["ResponseCode"] == -1
    found = box.ended(command)
    assert len(found["StandardOutputContent"]) == 24_000 and found["StandardOutputContent"].endswith("0--output truncated--")
    assert len(found["StandardErrorContent"]) == 8_000 and found["StandardErrorContent"].endswith("0--output truncated--")


def test_a_background_child_that_inherits_stdout_holds_the_command(box):
    begun = time.monotonic()
    box.run("sleep 1.5 & echo started")
    assert time.monotonic() - begun > 1.5
    begun = time.monotonic()
    box.run("sleep 1.5 >/dev/null 2>&1 & echo started")
    assert time.monotonic() - begun < 1.4


def test_timeout_kills_the_group_without_traps_and_spares_what_setsid_moved(box, until):
    script = """trap 'touch "$BOX_ROOT/trapped"' TERM EXIT; setsid sleep 61.5 >/dev/null 2>&1 </dev/null & sleep 62.5"""
    found = box.run(script, executionTimeout="5")
    assert (found["Status"], found["StatusDetails"], found["ResponseCode"]) == ("TimedOut", "Execution Timed Out", 137)
    assert not (box.root / "trapped").exists()
    assert "sleep 61.5" in running(box) and "sleep 62.5" not in running(box)


def test_cancel_kills_a_running_command(box, until):
    command = box.send("echo begun; sleep 63.5")
    until(lambda: box.status(command) == "InProgress")
    box.cloud.ssm.cancel_command(CommandId=command)
    found = box.ended(command)
    assert (found["Status"], found["ResponseCode"]) == ("Cancelled", -1)
    until(lambda: "sleep 63.5" not in running(box))


def test_five_commands_run_at_once_and_the_sixth_waits(box, until):
    held = [box.send("sleep 64.5") for _ in range(5)]
    until(lambda: all(box.status(command) == "InProgress" for command in held))
    sixth = box.send("true")
    time.sleep(0.6)
    assert box.status(sixth) == "Pending"
    for command in held:
        box.cloud.ssm.cancel_command(CommandId=command)
    assert box.ended(sixth)["Status"] == "Success"


def test_a_new_command_does_not_show_at_once(box):
    command = box.send("true")
    assert box.invocation(command) is None
    assert box.cloud.ssm.list_command_invocations(CommandId=command)["CommandInvocations"] == []
    assert box.ended(command)["Status"] == "Success"


def test_lists_commands_with_their_comment_and_parameters(box):
    arguments = {"DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true"]}, "Comment": "run-17"}
    sent = box.cloud.ssm.send_command(InstanceIds=[box.instance], **arguments)["Command"]
    box.ended(sent["CommandId"])
    (found,) = [one for one in box.cloud.ssm.list_commands()["Commands"] if one["Comment"] == "run-17"]
    assert found["Parameters"] == {"commands": ["true"]} and found["Status"] == "Success"
    (found,) = box.cloud.ssm.list_command_invocations(CommandId=sent["CommandId"], Details=True)["CommandInvocations"]
    assert found["CommandPlugins"][0]["ResponseCode"] == 0


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
    assert box.run("pwd", workingDirectory="/no/such/place")["Status"] == "Failed"


@pytest.fixture
def machine(cloud):
    """A box that the test may break."""
    made = cloud.box()
    yield made
    cloud.ec2.terminate_instances(InstanceIds=[made.instance])


def agent_of(box) -> psutil.Process:
    return processes.called(box.root, box.instance)[0]


def test_an_execution_timeout_below_five_seconds_silently_becomes_an_hour(box):
    assert box.run("sleep 2.2; echo whole", executionTimeout="1")["StandardOutputContent"] == "whole\n"


def test_starts_in_the_directory_of_the_agents_unit(box):
    assert box.run("pwd")["StandardOutputContent"] == f"{box.root}/usr/bin\n"


def test_a_cancelled_command_that_still_waits_for_its_turn_never_runs(box, until):
    held = [box.send("sleep 60.5") for _ in range(5)]
    until(lambda: all(box.status(command) == "InProgress" for command in held))
    sixth = box.send('touch "$BOX_ROOT/tmp/sixth"')
    time.sleep(0.5)
    box.cloud.ssm.cancel_command(CommandId=sixth)
    until(lambda: box.status(sixth) == "Cancelled")
    for command in held:
        box.cloud.ssm.cancel_command(CommandId=command)
    assert all(box.ended(command)["Status"] == "Cancelled" for command in held)
    assert box.run("true")["Status"] == "Success"
    assert not (box.root / "tmp/sixth").exists()


def test_the_script_stays_on_the_box(box):
    """So a secret in a command would outlive it there, as well as in the command's history."""
    command = box.ended(box.send("echo planted-in-a-script"))["CommandId"]
    folder = box.root / f"var/lib/amazon/ssm/{box.instance}/document/orchestration/{command}/awsrunShellScript/0.awsrunShellScript"
    assert "planted-in-a-script" in (folder / "_script.sh").read_text()


def test_a_script_outlives_its_agent_and_the_next_agent_delivers_its_end(machine, until):
    command = machine.send('echo begun; sleep 3; echo "$SSM_COMMAND_ID"')
    until(lambda: machine.status(command) == "InProgress")
    old = agent_of(machine)
    old.kill()
    world.ask(machine.cloud.state, "start_agent", instance=machine.instance)
    found = machine.ended(command)
    assert found["StandardOutputContent"] == f"begun\n{command}\n" and found["ResponseCode"] == 0
    assert agent_of(machine).pid != old.pid


def test_a_script_that_a_reboot_cut_off_runs_again(machine, until):
    command = machine.send('echo run >>"$BOX_ROOT/root/runs"; [ "$(wc -l <"$BOX_ROOT/root/runs")" -gt 1 ] || sleep 60.6')
    until(lambda: (machine.root / "root/runs").exists())
    machine.cloud.ec2.reboot_instances(InstanceIds=[machine.instance])
    assert machine.ended(command)["Status"] == "Success"
    assert (machine.root / "root/runs").read_text() == "run\nrun\n"


def test_exit_194_reboots_the_box_and_runs_the_script_again(machine):
    script = """echo "$(cat "$BOX_ROOT/run/before" 2>/dev/null)" >>"$BOX_ROOT/root/boots"
    mkdir -p "$BOX_ROOT/run"; echo same >"$BOX_ROOT/run/before"
    [ "$(wc -l <"$BOX_ROOT/root/boots")" -gt 1 ] || exit 194
    echo after the reboot"""
    found = machine.run(script)
    assert (found["Status"], found["StandardOutputContent"]) == ("Success", "after the reboot\n")
    assert (machine.root / "root/boots").read_text() == "\n\n"  # /run was empty each time


def test_a_shutdown_on_the_box_stops_the_instance(machine, until):
    machine.send("shutdown -h now; sleep 60.7")
    until(lambda: machine.cloud.instance_state(machine.instance) == "stopped")


def test_output_goes_to_s3_when_the_command_has_ended(box):
    arguments = {"DocumentName": "AWS-RunShellScript", "OutputS3BucketName": "things", "OutputS3KeyPrefix": "out/put"}
    parameters = {"commands": ["printf %030000d 0; echo problem >&2"]}
    sent = box.cloud.ssm.send_command(InstanceIds=[box.instance], Parameters=parameters, **arguments)["Command"]["CommandId"]
    found = box.ended(sent)
    key = f"out/put/{sent}/{box.instance}/awsrunShellScript/0.awsrunShellScript/stdout"
    assert len(box.cloud.s3.get_object(Bucket="things", Key=key)["Body"].read()) == 30_000  # whole, not cut
    assert found["StandardOutputUrl"].endswith(f"/things/{key}")
    assert box.cloud.s3.get_object(Bucket="things", Key=key[:-6] + "stderr")["Body"].read() == b"problem\n"


def test_output_streams_to_cloudwatch_while_the_command_runs(box, until):
    wanted = {"CloudWatchOutputEnabled": True, "CloudWatchLogGroupName": "/commands"}
    parameters = {"commands": ["echo early; sleep 4; echo late"]}
    request = {"InstanceIds": [box.instance], "DocumentName": "AWS-RunShellScript", "Parameters": parameters}
    sent = box.cloud.ssm.send_command(**request, CloudWatchOutputConfig=wanted)["Command"]["CommandId"]
    stream = {"logGroupName": "/commands", "logStreamName": f"{sent}/{box.instance}/aws-runShellScript/stdout"}

    def messages() -> list[str]:
        try:
            return [event["message"] for event in box.cloud.logs.get_log_events(**stream, startFromHead=True)["events"]]
        except box.cloud.logs.exceptions.ResourceNotFoundException:
            return []

    until(lambda: messages() == ["early"])
    assert box.status(sent) == "InProgress" and box.invocation(sent)["StandardOutputContent"] == ""
    box.ended(sent)
    assert messages() == ["early", "late"]


def test_every_rule_of_the_table_has_its_source_and_a_test_that_exists():
    here = Path(__file__).parent
    rows = [line.split("|")[1:-1] for line in (here.parents[1] / "twin/RUN_COMMAND.md").read_text().splitlines() if line.startswith("| ")][
        2:
    ]
    assert len(rows) >= 20
    known = {
        name for file in ("test_run_command.py", "test_messages.py", "test_boxes.py", "test_clock.py") for name in functions(here / file)
    }
    for _, rule, source, test in rows:
        assert rule.strip() and source.strip()
        assert test.strip().strip("`") in known, test


def functions(path: Path) -> list[str]:
    return [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
