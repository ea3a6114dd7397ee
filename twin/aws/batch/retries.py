"""Whether a job is tried again: https://docs.aws.amazon.com/batch/latest/userguide/job_retries.html

The first entry of evaluateOnExit decides all of whose conditions hold; where none does, the job is retried.
"""


def again(rules: list[dict], status_reason: str, reason: str, exit_code: int | None) -> bool:
    code = "" if exit_code is None else str(exit_code)
    for rule in rules:
        values = {"onStatusReason": status_reason, "onReason": reason, "onExitCode": code}
        if all(matches(rule[name], value) for name, value in values.items() if rule.get(name)):
            return rule["action"].upper() == "RETRY"
    return True


def matches(pattern: str, value: str) -> bool:
    """A pattern may end in an asterisk, "so that only the start of the string needs to be an exact match" (API, EvaluateOnExit)."""
    return value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern
