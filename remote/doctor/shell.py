"""Which way `inv shell` and `inv forward` take from this machine."""

from conf.finding import OK, Finding
from remote.doctor.check import Context
from remote.transport import session_manager

PAGE = "https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html"


def way_in(context: Context) -> list[Finding]:
    """Either way works: it is only said which, and what would make it the other."""
    reason = session_manager.why_not()
    if not reason:
        return [Finding("shell", OK, "`inv shell` goes through Session Manager, with no port open")]
    return [Finding("shell", OK, f"`inv shell` goes by SSH, because {reason}; with its newest release no port is opened: {PAGE}")]
