"""A plan as a verb carries it out: rehearsed or performed, its result said, and a line about it in the audit."""

import contextlib
import time

from conf.cli import rehearsed


def planned():
    """The plans; imported late, for `inv --list` needs none."""
    from remote.plan import verbs

    return verbs


def perform(c, run, verb, parts, done, audited=True) -> None:
    """Carry out or rehearse a plan, say what it came to, and leave a line in the audit where the bucket is to stay."""
    from remote.aws.s3 import Store
    from remote.aws.session import Aws
    from remote.runs import audit

    if rehearsed(c, f"# {verb}"):
        print(planned().rehearse(parts))
        return
    started, aws = time.monotonic(), Aws(run.cloud)
    try:
        facts = planned().perform(parts, aws, planned().transport(run))
    except BaseException:
        # What went wrong is what the user must read, whether or not the audit can be written.
        with contextlib.suppress(Exception):
            if audited:
                audit.write(Store(aws), verb, run.box.name, time.monotonic() - started, "failed")
        raise
    if audited:
        audit.write(Store(aws), verb, run.box.name, time.monotonic() - started, "ok")
    if done:
        print(done.format(**facts), flush=True)
