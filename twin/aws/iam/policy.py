"""What IAM policies come to for one action on one resource: as much of AWS's evaluation as identity policies of one account need.

An explicit Deny wins, then an Allow, else it is denied. Known are Action and NotAction, Resource and NotResource, with `*` and `?`, and
conditions of the operators below, with `...IfExists`, `ForAnyValue:` and `ForAllValues:`; a policy with any other operator is refused,
never guessed at. Policy variables are known in conditions. Not known are permission boundaries, session policies and what a
resource's own policy says.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

import re
from collections.abc import Callable, Iterable
from functools import cache

ALLOWED, EXPLICIT, IMPLICIT = "allowed", "explicitDeny", "implicitDeny"  # the words of SimulatePrincipalPolicy

VARIABLE = re.compile(r"\$\{([^}]+)\}")  # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
Context = dict[str, str | list[str]]


class Unknown(ValueError):
    """A condition that this evaluation does not know."""


def decide(documents: Iterable[dict], action: str, resource: str, context: Context) -> str:
    """`allowed`, `explicitDeny` or `implicitDeny`."""
    effects = {one["Effect"] for document in documents for one in statements(document) if applies(one, action, resource, context)}
    return EXPLICIT if "Deny" in effects else ALLOWED if "Allow" in effects else IMPLICIT


def allows(documents: list[dict], wanted: Iterable) -> bool:
    """Whether all that is asked for, each with an action, a resource and a context, is allowed."""
    return all(decide(documents, one.action, one.resource, one.context) == ALLOWED for one in wanted)


def statements(document: dict) -> list[dict]:
    return as_list(document["Statement"])


def applies(statement: dict, action: str, resource: str, context: Context) -> bool:
    return (
        element_matches(statement, "Action", lambda pattern: matches_pattern(pattern.lower(), action.lower()))
        and element_matches(statement, "Resource", lambda pattern: matches_pattern(pattern, resource))
        and all(
            condition_holds(operator, key, as_list(wanted), context)
            for operator, tests in statement.get("Condition", {}).items()
            for key, wanted in tests.items()
        )
    )


def element_matches(statement: dict, element: str, matches: Callable[[str], bool]) -> bool:
    """Whether `Action` names it, or `NotAction` does not; likewise resources."""
    if f"Not{element}" in statement:
        return not any(map(matches, as_list(statement[f"Not{element}"])))
    return any(map(matches, as_list(statement.get(element, []))))


def condition_holds(operator: str, key: str, wanted: list, context: Context) -> bool:
    """Whether the values that the request has for `key` pass; a key that it lacks passes negated and `...IfExists` tests only."""
    values = next((as_list(value) for name, value in context.items() if name.lower() == key.lower()), [])
    if operator == "Null":
        return (not values) is (str(wanted[0]).lower() == "true")
    many, _, plain = operator.rpartition(":")
    test, negated = OPERATORS.get(plain.removesuffix("IfExists"), (None, False))
    if test is None:
        raise Unknown(f"this emulation knows no condition operator {operator}")
    if not values:
        return negated or plain.endswith("IfExists") or many == "ForAllValues"
    patterns = [filled for pattern in wanted if (filled := with_variables(str(pattern), context)) is not None]
    passing = [any(test(pattern, value) for pattern in patterns) is not negated for value in map(str, values)]
    return any(passing) if many == "ForAnyValue" else all(passing)


def with_variables(pattern: str, context: Context) -> str | None:
    """The pattern with the request's own values for `${KEY}`; None where the request has no such value: nothing is like it then."""
    known = {name.lower(): as_list(value)[0] for name, value in context.items() if len(as_list(value)) == 1}
    if any(name.lower() not in known for name in VARIABLE.findall(pattern)):
        return None
    return VARIABLE.sub(lambda match: known[match[1].lower()], pattern)


def matches_pattern(pattern: str, text: str) -> bool:
    return bool(expression(pattern).fullmatch(text))


@cache
def expression(pattern: str) -> re.Pattern:
    return re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)


def as_list(value) -> list:
    return value if isinstance(value, list) else [value]


def equal(wanted: str, value: str) -> bool:
    return wanted == value


def equal_ignoring_case(wanted: str, value: str) -> bool:
    return wanted.lower() == value.lower()


# Operator to its test, and whether it is a negation of it.
OPERATORS: dict[str, tuple[Callable[[str, str], bool], bool]] = {
    "StringEquals": (equal, False),
    "StringNotEquals": (equal, True),
    "StringEqualsIgnoreCase": (equal_ignoring_case, False),
    "StringLike": (matches_pattern, False),
    "StringNotLike": (matches_pattern, True),
    "ArnEquals": (matches_pattern, False),
    "ArnLike": (matches_pattern, False),
    "ArnNotEquals": (matches_pattern, True),
    "ArnNotLike": (matches_pattern, True),
    "Bool": (equal_ignoring_case, False),
}
