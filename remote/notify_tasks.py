"""`inv notify.test`: a notice by hand, by every way that is set; the box sends all others by itself."""

from invoke import task

from conf.cli import rehearsed, settings
from conf.process.screen import screen


@task
def test(c):
    """Send a notice by mail and to the webhook, and show what came back."""
    from remote.account import notices
    from remote.aws.session import Aws

    run = settings(c)
    if rehearsed(c, "call   Send a notice by mail and to the webhook, as far as they are set"):
        return
    screen.print("\n".join(notices.send_test(Aws(run.cloud), run.notify)))
