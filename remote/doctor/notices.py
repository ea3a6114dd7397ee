"""Whether those who are to be told of an end can be."""

from conf.finding import NOTE, OK, Finding
from remote.account import notices
from remote.aws.stop_mail import topic
from remote.doctor.check import Context

WHY = "nobody would be told when a run or the box ends"


def receivers(context: Context) -> list[Finding]:
    """Nothing where nobody is to be told. The chain works without, so nothing here is broken."""
    notify, aws = context.run.notify, context.aws
    findings = []
    if notify.email:
        state = notices.subscription(aws, notify.email)
        if not state:
            what, command = f"no topic of this stack mails {notify.email}", f"`inv init -- notify.email={notify.email}`"
            findings.append(Finding("notices", NOTE, what, WHY, command))
        elif state == "PendingConfirmation":
            what = f"{notify.email} is not confirmed: SNS sends it nothing before its owner has agreed"
            findings.append(Finding("notices", NOTE, what, WHY, notices.CONFIRM.format(topic=topic(aws), email=notify.email)))
        else:
            findings.append(Finding("notices", OK, f"mail goes to {notify.email}"))
    if notify.webhook and not notices.has_address(aws, notify.webhook):
        what = f"there is no secret `{notify.webhook}`, or no http address in it"
        findings.append(Finding("notices", NOTE, what, WHY, notices.SECRET.format(name=notify.webhook)))
    elif notify.webhook:
        findings.append(Finding("notices", OK, f"the secret `{notify.webhook}` has the webhook's address"))
    return findings
