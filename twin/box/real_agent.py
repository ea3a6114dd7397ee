"""How amazon-ssm-agent itself, named by TWIN_AGENT, runs in a box of the process grade in the place of the twin's own agent.

It is started as its package's unit does: `/usr/bin/amazon-ssm-agent` without arguments, as root, in /usr/bin of the box. Namespaces of
the box's own (`real_agent.sh`) put its programs into /usr/bin, the box's folders etc, var/lib and var/log/amazon/ssm where it looks for
them, the box's `shutdown` into /sbin, and hide the processes of other boxes, whose workers it would take for its own. Its identity and
credentials come from the box's metadata service (AWS_EC2_METADATA_SERVICE_ENDPOINT), SSM and ec2messages from the endpoints in
amazon-ssm-agent.json; for CloudWatch, S3 and ssmmessages it knows AWS's own names only, and reaches them through a proxy.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from twin.box.machine import lifecycle, prerequisites

START = Path(__file__).with_name("real_agent.sh")
SPACE = "run/agent-space"
PATIENCE = 20.0  # seconds until the namespaces are there
OWN = ("setpriv", "--bounding-set", "-sys_boot", "--inh-caps", "-sys_boot", "--")  # no mistake in here turns the machine off


def missing() -> str:
    """Why another agent cannot be had here; empty when it can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "another agent needs Linux and root"
    lacking = [name for name in ("unshare", "nsenter", "setpriv") if not prerequisites.program(name)]
    return f"another agent needs Debian's util-linux: {', '.join(lacking)}" if lacking else ""


def unfit(grade: str) -> str:
    """Why what TWIN_AGENT names cannot be the agent of a world's boxes; empty when it can, or names nothing."""
    program = os.environ.get("TWIN_AGENT")
    if not program:
        return ""
    if not os.access(program, os.X_OK) or not Path(program).is_file():
        return f"TWIN_AGENT names {program}, which is no program"
    return "TWIN_AGENT is for boxes of the grade `process`" if grade == "machine" else missing()


class RealAgent:
    def __init__(self, program: Path, state: Path):
        self.program, self.state = program, state
        self.proxy = None
        self.spaces: dict[Path, subprocess.Popen] = {}  # by the box's root

    @classmethod
    def named(cls, state: Path) -> "RealAgent | None":
        """What TWIN_AGENT names; none when it names nothing."""
        program = os.environ.get("TWIN_AGENT")
        return cls(Path(program).resolve(), state) if program else None

    def words(self, root: Path, environment: dict[str, str]) -> list[str]:
        """The command that starts it in the box."""
        from twin.aws.gateway.proxy import Proxy  # what makes its certificate takes a moment to load

        self.proxy = self.proxy or Proxy(environment["AWS_ENDPOINT_URL"], environment["AWS_DEFAULT_REGION"], self.state / "aws-names.pem")
        configuration = root / "etc/amazon/ssm/amazon-ssm-agent.json"
        configuration.parent.mkdir(parents=True, exist_ok=True)
        configuration.write_text(json.dumps(settings(environment["AWS_ENDPOINT_URL"]), indent=2), encoding="utf-8")
        names = {"SSL_CERT_FILE": self.proxy.certificate}
        names |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), self.proxy.address)
        enter = ["nsenter", f"--target={self.space(root)}", "--mount", "--pid", f"--wd={root / 'usr/bin'}"]
        return [*enter, *OWN, "env", *(f"{name}={value}" for name, value in names.items()), "/usr/bin/amazon-ssm-agent"]

    def space(self, root: Path) -> int:
        """The first process of the box's namespaces, which live as long as the box has power."""
        outer = self.spaces.get(root)
        if outer and outer.poll() is None:
            return lifecycle.child(outer)
        (root / SPACE).unlink(missing_ok=True)
        unshare = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child=SIGKILL"]
        with (root / "var/log/amazon-ssm-agent.log").open("ab") as log:
            words = [*unshare, "bash", str(START), str(root), str(self.program)]
            silent = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
            # Not the box's PATH: its `mount` only stands for one.
            outer = self.spaces[root] = subprocess.Popen(words, env={"PATH": prerequisites.SYSTEM_PATH, "BOX_ROOT": str(root)}, **silent)
        deadline = time.monotonic() + PATIENCE
        while not (root / SPACE).exists():
            if outer.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{self.program} cannot run here: {(root / 'var/log/amazon-ssm-agent.log').read_text(encoding='utf-8')[-1000:]}"
                )
            time.sleep(0.02)
        return lifecycle.child(outer)


def settings(aws: str) -> dict:
    """amazon-ssm-agent.json: what differs from the file that the package brings."""
    return {
        "Mds": {"Endpoint": aws, "CommandWorkersLimit": 5, "StopTimeoutMillis": 20_000, "CommandRetryLimit": 15},
        "Ssm": {"Endpoint": aws, "HealthFrequencyMinutes": 5},
        "Agent": {"SelfUpdate": False},
        "Identity": {"ConsumptionOrder": ["EC2"]},
    }
