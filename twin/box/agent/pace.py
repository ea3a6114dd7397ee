"""How fast this agent is: the pauses of amazon-ssm-agent, divided by TWIN_AGENT_SPEED; at 1 it is as slow as the real one."""

import os
import time

SPEED = float(os.environ.get("TWIN_AGENT_SPEED", "100"))

QUICK = 1.0  # seconds; a poll that took less is followed by a pause (mdsinteractor.go)
AFTER_QUICK = (2.0, 2.5)
FULL = 10.0  # until it looks again whether a command that it has fetched finds room (mdsinteractor.go)
UNREGISTERED = 300.0  # until it tries again to register, where it has no role (seen)
UNSENT = 300.0  # between two attempts at replies that did not get through (SendFailedReplyFrequencyMinutes)
LOST = 60.0  # until a document whose worker is gone is given up (seen)
CHANNEL = 5.0  # until it tries again to open a control channel (ControlChannelRetryInitialDelayMillis)
MONITOR = 60.0  # until the core looks after its worker again (LongRunningWorkerMonitorIntervalSeconds)
OUTPUT = 400_000.0  # bytes a second that it takes from a script: it copies byte by byte (commandoutput.go); 0.3-0.5 MB/s seen


def pause(seconds: float) -> None:
    time.sleep(seconds / SPEED)
