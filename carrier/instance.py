"""What the instance says of itself: who it is, whether AWS takes it back, whether its GPUs answer and compute.

The metadata service is asked with a token (IMDSv2). A job of one node has its host's network, so that the token travels far enough.
"""

import json
import os
import shutil
import subprocess
import urllib.request
from contextlib import suppress

HERE = "http://169.254.169.254"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
MOST = 65536  # bytes of an answer


def _metadata(name: str) -> str | None:
    """What the metadata service says under this name of the instance's own; None where it says nothing."""
    return _said(f"meta-data/{name}")


def _said(path: str) -> str | None:
    place = f"{os.environ.get('AWS_EC2_METADATA_SERVICE_ENDPOINT', HERE).rstrip('/')}/latest"
    with suppress(OSError, ValueError):
        lasting = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        asked = urllib.request.Request(f"{place}/api/token", method="PUT", headers=lasting)
        with DIRECT.open(asked, timeout=2) as answer:
            token = answer.read(MOST).decode()
        asked = urllib.request.Request(f"{place}/{path}", headers={"X-aws-ec2-metadata-token": token})
        with DIRECT.open(asked, timeout=2) as answer:
            return answer.read(MOST).decode()
    return None


def about() -> dict[str, str]:
    """Its id, type and zone, as far as it says them: what the run's price is found by."""
    names = {"host": "instance-id", "type": "instance-type", "zone": "placement/availability-zone", "market": "instance-life-cycle"}
    return {ours: said for ours, theirs in names.items() if (said := _metadata(theirs))}


def for_the_ledger() -> dict[str, str | bool] | None:
    """What the ledger must know of the instance when EC2 has forgotten it, an hour after its end; None where nobody says.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/retrieve-iid.html: `pendingTime` is when it was launched.
    """
    with suppress(ValueError, TypeError, KeyError):
        said = json.loads(_said("dynamic/instance-identity/document") or "")
        words = {"instance": "instanceId", "instance_type": "instanceType", "zone": "availabilityZone", "launched": "pendingTime"}
        return {ours: str(said[theirs]) for ours, theirs in words.items()} | {"spot": _metadata("instance-life-cycle") == "spot"}
    return None


def notice() -> str | None:
    """When AWS will take this spot instance back, if it has said so: two minutes before."""
    with suppress(ValueError, TypeError, KeyError):
        return str(json.loads(_metadata("spot/instance-action") or "")["time"])
    return None


def gpus_answer() -> bool:
    """Whether the GPUs that the job was given answer; true where it was given none."""
    if os.environ.get("NVIDIA_VISIBLE_DEVICES", "void") in ("", "void", "none"):
        return True
    return _nvidia_smi("-L") is not None


def computing() -> bool:
    """Whether a GPU computes; one that does not answer computes nothing."""
    said = _nvidia_smi("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits") or ""
    return any(line.strip().isdigit() and int(line) > 0 for line in said.splitlines())


def _nvidia_smi(*words: str) -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run([program, *words], capture_output=True, text=True, timeout=20, check=True).stdout
    return None


def killed_for_memory() -> int:
    """How many processes the kernel has ended because the container's memory was full (Linux, "Control Group v2", memory.events)."""
    with suppress(OSError, ValueError), open("/sys/fs/cgroup/memory.events", encoding="ascii") as events:
        return int(dict(line.split() for line in events)["oom_kill"])
    return 0
