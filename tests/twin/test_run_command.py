"""Run Command through a real agent process: what the open source agent does is what is promised here."""

import time

import pytest
from botocore.exceptions import ClientError

from twin import processes


def running(box) -> list[str]:
    return [" ".join(process.cmdline()) for process in processes.of(box.root)]


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
