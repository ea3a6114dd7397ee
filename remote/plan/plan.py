"""A plan: parts that each declare what they find out. What is wrong with it fails when it is built, before anything is touched.

A part's answer is a frozen dataclass. To the type checker `plan.call(action)(...)` is that very dataclass; at run time it is a stand-in,
whose fields are `Reference`s until the plan is carried out (remote/plan/perform.py).
"""

import functools
import inspect
import operator
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from conf.problem import Problem
from remote.aws.session import Aws
from remote.plan import script as scripts

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
SHELL = str | int | float | bool | Path | tuple[str, ...] | None  # what can be a setting of a script


@dataclass(frozen=True)
class Reference:
    """Stands for a value that an earlier part of the plan finds out."""

    plan: "Plan" = field(compare=False, repr=False)
    number: int  # of the part
    name: str
    declared: Any  # its type

    def __str__(self) -> str:
        return f"<{self.name}>"


@dataclass(frozen=True)
class Latest:
    """Stands for a value that one of several parts finds out: of those that are known, and not None, the latest."""

    of: tuple[Reference, ...]

    @property
    def declared(self) -> Any:
        kinds = [kind for reference in self.of for kind in _members(reference.declared) if kind is not type(None)]
        return functools.reduce(operator.or_, kinds)

    def __str__(self) -> str:
        return str(self.of[-1])


class Answer:
    """Stands for what a part will answer: its fields are references."""

    def __init__(self, plan: "Plan", number: int, where: str, kind: Any):
        self._plan, self._number, self._where, self._kind = plan, number, where, kind

    def __getattr__(self, name: str) -> Reference:
        known = _fields(self._kind)
        if name not in known:
            raise AttributeError(f"{self._where} does not find out `{name}`; it finds out {', '.join(known) or 'nothing'}")
        return Reference(self._plan, self._number, name, known[name])


@dataclass(frozen=True)
class Retry:
    """A call that may fail in this way is made again, for so many seconds."""

    on: type[Problem]
    seconds: float


@dataclass(frozen=True)
class Call:
    """A function `action(aws, **inputs)`; the first line of its docstring is what it intends."""

    action: Callable[..., Any]
    inputs: dict[str, Any]
    when: "bool | Reference" = True  # left out unless this is true
    announce: bool = True  # whether a line says that it is done
    retry: Retry | None = None

    @property
    def intent(self) -> str:
        return (self.action.__doc__ or self.action.__name__).strip().splitlines()[0].rstrip(".")


@dataclass(frozen=True)
class Step:
    """A script of remote/scripts, run on the box with `inputs` as shell variables; it answers an `answer`."""

    script: str
    answer: type
    inputs: dict[str, Any]
    on: Any  # id of the instance
    timeout: int = 120  # seconds
    when: "bool | Reference" = True
    announce: bool = True
    repeat_while: str | None = None  # run again while it answers yes to this; its stderr is shown meanwhile
    continue_message: str = ""  # printed where the box does not run the script or fails at it; the plan then continues

    @property
    def intent(self) -> str:
        return scripts.body(self.script).removeprefix("# ").splitlines()[0].rstrip(".")

    def text(self, resolve: Callable[[Any], Any] = lambda value: value) -> str:
        """The self-contained bash text: settings, lib.sh, what else stands above the script, and the script."""
        return scripts.compose(self.script, {"LEASE": self.timeout} | {name: resolve(value) for name, value in self.inputs.items()})


@dataclass(frozen=True)
class Hold:
    """Something that is kept while the parts behind go on, and given back at the end, however that comes."""

    value: Reference
    renew: Callable[[Aws, Any], object]
    release: Callable[[Aws, Any], object]


@dataclass
class Plan:
    parts: list[Call | Step] = field(default_factory=list)
    held: Hold | None = None
    failure: tuple[Callable[..., str], dict[str, Any]] | None = None
    end: tuple[str, dict[str, Any]] | None = None
    next: str = ""

    def __iter__(self) -> Iterator[Call | Step]:
        return iter(self.parts)

    def call(
        self,
        action: Callable[Concatenate[Aws, P], R],
        *,
        when: bool = True,
        announce: bool = True,
        answer: type[R] | None = None,
        retry: Retry | None = None,
    ) -> Callable[P, R]:
        """Add a call of `action`: give the result its inputs, as the action would be given them.

        What it answers stands in its annotations; of a function that comes from elsewhere `answer` says it.
        """

        def add(*args: P.args, **kwargs: P.kwargs) -> R:
            where, hints = _name(action), get_type_hints(action)
            inputs = _bind(where, action, (None, *args), kwargs, skip=1)
            condition = self._condition(where, when)
            for name, value in inputs.items():
                self._check(where, name, value, hints.get(name, Any), condition)
            self.parts.append(Call(action, inputs, condition, announce, retry))
            return cast(R, Answer(self, len(self.parts) - 1, where, answer or hints.get("return")))

        return add

    def step(
        self,
        script: str,
        answer: type[R],
        *,
        on: str,
        timeout: int = 120,
        when: bool = True,
        announce: bool = True,
        repeat_while: str | None = None,
        continue_message: str = "",
    ) -> Callable[..., R]:
        """Add a script that runs on the instance `on`: give the result its settings."""

        def add(**inputs: object) -> R:
            where, condition = f"{script}.sh", self._condition(f"{script}.sh", when)
            self._check(where, "on", on, str, condition)
            if repeat_while is not None and _fields(answer).get(repeat_while) is not bool:
                raise TypeError(f"{where} is to run again while `{repeat_while}`, which is no yes or no that it answers")
            if missing := sorted(scripts.needs(script) - inputs.keys()):
                raise TypeError(f"{where} lacks the setting {', '.join(missing)}")
            if unknown := sorted(inputs.keys() - scripts.variables(script)):
                raise TypeError(f"{where} has no setting {', '.join(unknown)}")
            for name, value in inputs.items():
                self._check(where, name, value, SHELL, condition)
            self.parts.append(Step(script, answer, inputs, on, timeout, condition, announce, repeat_while, continue_message))
            return cast(R, Answer(self, len(self.parts) - 1, where, answer))

        return add

    def latest(self, *values: T | None) -> T:
        """Where one of several parts finds a value out: of those that are known, and not None, the latest."""
        strange = [value for value in values if not isinstance(value, Reference)]
        if strange or not values:
            raise TypeError(f"the latest is one of the parts' values, and not {strange}")
        return cast(T, Latest(tuple(cast("list[Reference]", values))))

    def hold(self, value: T, renew: Callable[[Aws, T], object], release: Callable[[Aws, T], object]) -> None:
        """Between the parts from here on `renew` the value; `release` it at the end, whatever happens."""
        self._owned("what is held", "value", cast(Reference, value))
        self.held = Hold(cast(Reference, value), renew, release)

    def on_failure(self, words: Callable[P, str]) -> Callable[P, None]:
        """When a part fails, `words` makes the line that is said, of what is known by then: what is not is None."""

        def add(*args: P.args, **kwargs: P.kwargs) -> None:
            inputs = _bind(_name(words), words, args, kwargs)
            for name, value in inputs.items():
                self._owned(_name(words), name, cast(Reference, value))
            self.failure = words, inputs

        return add

    def done(self, text: str, *, then: str = "", **values: object) -> None:
        """The final words: each `{name}` in them is one of the values. `then` is what to type next."""
        named = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        if named != values.keys():
            raise TypeError(f"the final words {text!r} name {sorted(named)}, and are given {sorted(values)}")
        for name, value in values.items():
            self._check("the final words", name, value, Any, True)
        self.end, self.next = (text, values), then

    def _condition(self, where: str, when: Any) -> "bool | Reference":
        if when is not True and not (isinstance(when, Reference) and when.declared is bool):
            raise TypeError(f"{where} is done when {when}, which is no yes or no that an earlier part finds out")
        self._check(where, "when", when, bool, True)
        return when

    def _check(self, where: str, name: str, value: Any, wanted: Any, when: "bool | Reference") -> None:
        references = value.of if isinstance(value, Latest) else (value,) if isinstance(value, Reference) else ()
        for reference in references:
            self._owned(where, name, reference)
        if references and not any(self._certain(reference, when) for reference in references):
            raise TypeError(f"{where} may be done where {name}={value} is not known: the part that finds it out may be left out")
        declared = value.declared if references else type(value)
        if not fits(declared, wanted):
            raise TypeError(
                f"{where} takes {name}: {_type_name(wanted)}, and not {value if references else repr(value)}: {_type_name(declared)}"
            )

    def _owned(self, where: str, name: str, reference: Reference) -> None:
        if not isinstance(reference, Reference) or reference.plan is not self:
            raise TypeError(f"{where}: {name}={reference} is not what a part of this plan finds out")

    def _certain(self, reference: Reference, when: "bool | Reference") -> bool:
        part = self.parts[reference.number]
        return part.when in (True, when) and not (isinstance(part, Step) and part.continue_message)


def _bind(where: str, action: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], skip: int = 0) -> dict[str, Any]:
    signature = inspect.signature(action)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{where}: {error}") from None
    inputs: dict[str, Any] = {}
    for name in list(bound.arguments)[skip:]:
        more = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        inputs |= bound.arguments[name] if more else {name: bound.arguments[name]}
    return inputs


def _name(action: Callable[..., Any]) -> str:
    return f"{action.__module__.rpartition('.')[2]}.{action.__name__}"


def _fields(kind: Any) -> dict[str, Any]:
    if not is_dataclass(kind):
        return {}
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind)}


def fits(declared: Any, wanted: Any) -> bool:
    """Whether each value of the one type is one of the other."""
    return all(any(_fits(one, other) for other in _members(wanted)) for one in _members(declared))


def _fits(one: Any, other: Any) -> bool:
    if one == other or one is Any or other is Any or other is object or (one, other) == (int, float):
        return True
    if get_origin(one) is Literal:
        return _fits(type(get_args(one)[0]), other)
    if get_origin(other) is Literal or one is bool:
        return False
    kind, wanted = get_origin(one) or one, get_origin(other) or other
    alike = not get_args(one) or not get_args(other) or get_args(one) == get_args(other)
    return alike and (getattr(wanted, "_is_protocol", False) or issubclass(kind, wanted))


def _members(kind: Any) -> list[Any]:
    if get_origin(kind) in (Union, UnionType):
        return [each for member in get_args(kind) for each in _members(member)]
    if get_origin(kind) is Literal:
        return [Literal[value] for value in get_args(kind)]
    return [kind]


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else re.sub(r"\w+\.", "", str(kind))
