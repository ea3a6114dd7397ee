"""Who may come to a box through Session Manager: this stack's boxes alone, by documents that are named; and leave his own sessions.

`inv doctor` asks for none of it: without, `inv shell` and `inv forward` go by SSH.
https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-restrict-access-examples.html
"""

from remote.account.statement import Account, Statement

# A shell needs none: the account's preferences are not asked for by their name.
DOCUMENTS = ("AWS-StartInteractiveCommand", "AWS-StartPortForwardingSession")


def sessions(account: Account) -> list[Statement]:
    documents = tuple(account.public("ssm", f"document/{name}") for name in DOCUMENTS)
    # Session Manager tags each session with the id of who started it.
    own = {"StringLike": {"ssm:resourceTag/aws:ssmmessages:session-id": "${aws:userid}"}}
    return [
        Statement(
            "EnterBox",
            "`shell` and `forward` without an open port",
            ("ssm:StartSession",),
            (account.arn("ec2", "instance/*"),),
            account.box_tag_condition("ssm:resourceTag"),
        ),
        Statement("EnterBy", "by AWS's own documents", ("ssm:StartSession",), documents),
        Statement(
            "LeaveBox",
            "and nobody ends another's session; the plugin resumes one whose connection was lost",
            ("ssm:ResumeSession", "ssm:TerminateSession"),
            (account.arn("ssm", "session/*"),),
            own,
        ),
    ]
