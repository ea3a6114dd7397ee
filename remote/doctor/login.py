"""Who is asking, for how long still, from which region and by which clock: without these no other check means anything."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from conf.finding import BROKEN, NOTE, OK, Finding
from remote.aws.session import LOGIN, explain

SOON = 15  # minutes
SKEW = 240  # seconds; AWS refuses what is signed more than five minutes away from its own clock
SKEWED = ("RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidSignatureException", "RequestInTheFuture", "AuthFailure")
CLOCK_WHY = "AWS refuses requests whose time is off by more than five minutes"
CLOCK_COMMAND = "`sudo timedatectl set-ntp true` (on a Mac: `sudo sntp -sS time.apple.com`)"


def check_login(name: str, client: Callable[[str], Any]) -> list[Finding]:
    """Region, credentials and clock, by the region's name and what makes a client of a service in it."""
    import boto3

    session = boto3.Session()
    region = _region(name, session)
    if region.verdict == BROKEN:
        return [region]
    try:
        answer = client("sts").get_caller_identity()
    except Exception as error:
        return [region, _refused(error)]
    return [region, _credentials(answer["Arn"], session), _clock(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))]


def command() -> str:
    """The command that renews this login, by what the profile says of itself."""
    import botocore.session

    session = botocore.session.get_session()
    name = session.get_config_variable("profile")
    try:
        profile = session.get_scoped_config()
    except Exception as error:  # a profile that does not exist is named in the finding itself
        return f"`aws configure{f' --profile {name}' if name else ''}` ({error})"
    which = f" --profile {name}" if name else ""
    if "sso_session" in profile or "sso_start_url" in profile:
        return f"`aws sso login{which}`"
    if "login_session" in profile:
        return f"`aws login{which}`"
    if "mfa_serial" in profile:
        return f"`aws sts get-caller-identity{which}`, with a new code of {profile['mfa_serial']}"
    if os.environ.get("AWS_SESSION_TOKEN"):
        return "fetch new keys from where AWS_SESSION_TOKEN came from, and export them"
    return f"`aws login{which}`, `aws sso login{which}` or `aws configure{which}`"


def _refused(error: Exception) -> Finding:
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    if code in SKEWED and "time" in str(error).lower():
        return Finding("clock", BROKEN, f"AWS refuses this machine's time ({code})", CLOCK_WHY, CLOCK_COMMAND)
    problem = explain(error)
    if problem is None:
        raise error
    hint = command() if problem.hint == LOGIN else problem.hint
    return Finding("credentials", BROKEN, problem.what, "every verb calls AWS", hint)


def _region(name: str, session: Any) -> Finding:
    known = [one for part in ("aws", "aws-cn", "aws-us-gov") for one in session.get_available_regions("ec2", part)]
    if name in known:
        return Finding("region", OK, name)
    return Finding(
        "region", BROKEN, f"there is no region `{name}`", "each region has an address of its own", "`cloud.region=us-east-1`, or another"
    )


def _credentials(arn: str, session: Any) -> Finding:
    credentials = session.get_credentials()
    # Only credentials that end have it, and botocore has no public name for it. Those of `aws login` end after 15 minutes, and botocore
    # renews them for as long as the login lasts: https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-sign-in.html
    ends = None if credentials is None or credentials.method == "login" else getattr(credentials, "_expiry_time", None)
    minutes = None if ends is None else (ends - datetime.now(UTC)).total_seconds() / 60
    if arn.endswith(":root"):
        what = "these are the root user's credentials"
        return Finding(
            "credentials", NOTE, what, "they can do anything and cannot be limited", "make a user or use SSO: `aws configure sso`"
        )
    if minutes is not None and minutes < SOON:
        why = "a run goes on without you, but watching and publishing stop"
        return Finding("credentials", NOTE, f"{arn}, for {minutes:.0f} minutes still", why, command())
    return Finding("credentials", OK, arn + ("" if minutes is None else f", for {minutes:.0f} minutes still"))


def _clock(date: str | None) -> Finding:
    if not date:
        return Finding("clock", NOTE, "AWS did not say its time", CLOCK_WHY, "`date -u`")
    seconds = (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    if abs(seconds) > SKEW:
        return Finding("clock", BROKEN, f"this machine's clock is off by {seconds:.0f} s", CLOCK_WHY, CLOCK_COMMAND)
    return Finding("clock", OK, f"within {max(1, abs(seconds)):.0f} s of AWS's")
