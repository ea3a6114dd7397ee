"""The transport over SSM Run Command: send, poll, collect."""

import secrets
import time

from conf.problem import Problem
from conf.process.screen import screen
from remote.aws import describe
from remote.aws.session import Aws, Retry, pauses
from remote.transport.transport import Result, pack

WAITING = {"Pending", "InProgress", "Delayed", "Cancelling"}
# "InvocationDoesNotExist" is documented for the first moments after a send.
GRACE = 30  # seconds
STATE_EVERY = (
    20  # seconds between two looks at whether the box runs at all: of one that is off AWS calls a command in progress for its whole time
)
LAG = 10  # seconds in which a command that was sent shows in the list
ATTEMPTS = 7  # 16 seconds of pauses
ANEW = "where its agent is dead, `inv down --force` and `inv up` start the box anew"
OTHERWISE = f"{ANEW}; `inv up -- box.ssh=true` comes in by SSH, and so do the verbs after it"
KILLED, UNANSWERED = 137, -1  # response codes: 128 and SIGKILL; no agent has said how it ended
CUT_OFF = "its box rebooted, or its agent failed, before it had ended"
LIMIT = 48_000  # bytes; the service refuses documents of 64 KB


class Ssm:
    """Runs scripts on one instance. Nothing is ever sent twice blindly: each send is findable by its title.

    The agent begins a script once. What a reboot or the end of the agent's worker cuts off is sent again, once: every step may run twice,
    and one that still runs is waited for on the box by the step's lock.
    """

    def __init__(self, aws: Aws, instance_id: str):
        self.aws = aws
        self.instance_id = instance_id

    def run(self, script: str, timeout: int, title: str = "") -> Result:
        self._check_agent()
        text = pack(script)
        if len(text) > LIMIT:
            what = f"a script of {len(text)} bytes is too long for Run Command"
            raise Problem(what, "this is a bug: please report it", reason="crashed")
        invocation = self._run(text, timeout, title)
        if _was_interrupted(invocation):
            screen.note(f"  {title or 'a script'} was cut off: {CUT_OFF}; it is sent again")
            invocation = self._run(text, timeout, title)
            if _was_interrupted(invocation):
                what = f"{title or 'a script'} was cut off twice: {CUT_OFF}"
                raise Problem(what, f"`inv status` shows the box; {OTHERWISE}", reason="unreachable")
        # ResponseCode is -1 when the script never ran to its end.
        return Result(invocation["ResponseCode"], invocation["StandardOutputContent"], invocation["StandardErrorContent"])

    def _run(self, text: str, timeout: int, title: str) -> dict:
        """The invocation of one command, when it has ended."""
        command_id = self._send(text, timeout, f"{title} {secrets.token_hex(4)}".strip())
        try:
            return self._collect(command_id, timeout)
        except KeyboardInterrupt:
            if self._cancel(command_id, WAITING - {"InProgress"}):
                raise KeyboardInterrupt(f"stopped; {title or 'the command'} had not begun on the box, and is withdrawn") from None
            raise
        except Problem:
            self._cancel(command_id, WAITING)  # else it would begin as soon as there is an agent again
            raise

    def _check_agent(self) -> None:
        """Nothing, or a Problem at once where AWS has not heard of the agent for minutes: a command would wait for it until it expires."""
        which = [{"Key": "InstanceIds", "Values": [self.instance_id]}]
        known = self.aws.client("ssm").describe_instance_information(Filters=which)["InstanceInformationList"]
        if known and known[0]["PingStatus"] == "ConnectionLost":
            last = f"{known[0]['LastPingDateTime']:%H:%M:%S}"
            raise Problem(
                f"AWS has not heard of the agent on {self.instance_id} since {last}",
                f"`inv up` waits for its agent; {OTHERWISE}",
                reason="unreachable",
            )

    def _send(self, text: str, timeout: int, title: str) -> str:
        from botocore.exceptions import ClientError, HTTPClientError

        # botocore sends again by itself when an answer is lost: here that would be a second run of the script.
        client = self.aws.client("ssm", once=True)
        request = {
            "InstanceIds": [self.instance_id],
            "DocumentName": "AWS-RunShellScript",
            "Comment": title[:100],
            "TimeoutSeconds": 60,  # so long and the script's own timeout together it waits for an agent that would take it
            "Parameters": {"commands": [text], "executionTimeout": [str(timeout)]},
        }
        for attempt in range(ATTEMPTS):
            try:
                return client.send_command(**request)["Command"]["CommandId"]
            except client.exceptions.InvalidInstanceId as error:
                what = f"the agent on {self.instance_id} does not take commands"
                raise Problem(what, f"`inv up` starts the box and waits for it; {OTHERWISE}", reason="unreachable") from error
            except (HTTPClientError, ClientError) as error:
                if not _is_retryable(error):
                    raise
                if not _is_throttled(error) and (sent := self._find_sent(title[:100])):
                    return sent
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(2**attempt / 4)
        raise AssertionError("the last attempt returns or raises")

    def _find_sent(self, title: str) -> str | None:
        """The command of this title, if it arrived: SendCommand has no client token, so we look before sending again."""
        for _ in pauses(LAG, first=0.5):
            recent = self.aws.client("ssm").list_commands(InstanceId=self.instance_id, MaxResults=20)["Commands"]
            if ids := [command["CommandId"] for command in recent if command.get("Comment") == title]:
                return ids[0]
        return None

    def _cancel(self, command_id: str, states: set[str]) -> bool:
        """Whether a command that has one of these states was cancelled; one that is at work in the box ends as it will."""
        from botocore.exceptions import BotoCoreError, ClientError

        ssm = self.aws.client("ssm")
        try:
            if ssm.get_command_invocation(CommandId=command_id, InstanceId=self.instance_id)["Status"] not in states:
                return False
            ssm.cancel_command(CommandId=command_id, InstanceIds=[self.instance_id])
        except (ClientError, BotoCoreError) as error:
            screen.note(f"  command {command_id} may still begin on the box: it could not be cancelled ({error})")
            return False
        return True

    def _collect(self, command_id: str, timeout: int) -> dict:
        from botocore.exceptions import BotoCoreError, ClientError

        started, pause, retry = time.monotonic(), 0.1, Retry(self.aws, "the command on the box goes on")
        begun, next_check = time.time(), time.monotonic() + STATE_EVERY
        while True:
            try:
                invocation = self.aws.client("ssm").get_command_invocation(CommandId=command_id, InstanceId=self.instance_id)
                if invocation["Status"] not in WAITING:
                    # The one clock stands still while the laptop sleeps, and somebody may set the other.
                    return self._finished(invocation, timeout, max(time.monotonic() - started, time.time() - begun))
                if time.monotonic() > next_check:
                    if (state := describe.instance(self.aws, self.instance_id)["State"]["Name"]) in ("stopped", "terminated"):
                        what = f"the box is {state}: it went off before command {command_id} had ended"
                        raise Problem(what, "`inv status` says why; `inv up`, then the same command again", reason="unreachable")
                    next_check = time.monotonic() + STATE_EVERY
            except (ClientError, BotoCoreError) as error:
                unknown = "InvocationDoesNotExist" in str(error)
                if unknown and time.monotonic() - started > GRACE:
                    raise
                if not unknown:
                    retry.wait(error)
            if time.monotonic() - started > timeout + 120:
                raise Problem(
                    f"command {command_id} has not answered for {timeout + 120} s",
                    f"`inv status` shows the box; {OTHERWISE}",
                    reason="unreachable",
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 5)

    def _finished(self, invocation: dict, timeout: int, seconds: float) -> dict:
        # Documents spell it with and without spaces: "Delivery Timed Out", "DeliveryTimedOut".
        details = invocation["StatusDetails"].replace(" ", "")
        if details in ("DeliveryTimedOut", "Undeliverable", "Terminated"):
            raise Problem(
                f"the box did not take the command ({invocation['StatusDetails']})",
                f"`inv up` waits for its agent; {OTHERWISE}",
                reason="unreachable",
            )
        # An exit code of 137 is a timeout for the agent at once: before the time is over it was the script's own. The service says so, too,
        # when both timeouts are over and no agent has answered.
        if details == "ExecutionTimedOut" and invocation["ResponseCode"] == KILLED and seconds >= timeout:
            raise Problem(
                f"a script took longer than its {timeout} s", "`inv status`, then run the same command again", reason="unreachable"
            )
        if details == "Cancelled":
            raise Problem("somebody cancelled the command on the box", "run the same command again", reason="refused")
        return invocation


def _was_interrupted(invocation: dict) -> bool:
    """Whether the agent gave it up, or is gone: it has nothing of a script that was cut off, and writes of any other how that ended."""
    if invocation["Status"] == "TimedOut":
        return invocation["ResponseCode"] == UNANSWERED
    return invocation["ResponseCode"] == 1 and not invocation["StandardOutputContent"] and not invocation["StandardErrorContent"]


def _is_retryable(error: Exception) -> bool:
    """Whether another attempt may do better: no answer, a throttle, or trouble of the service's own."""
    answer = getattr(error, "response", None)
    return answer is None or answer["ResponseMetadata"]["HTTPStatusCode"] >= 500 or _is_throttled(error)


def _is_throttled(error: Exception) -> bool:
    """Whether the service has said that it did nothing."""
    answer = getattr(error, "response", None)
    return answer is not None and answer["Error"]["Code"] in ("ThrottlingException", "Throttling")
