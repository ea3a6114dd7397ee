"""Conversations as people write them down, in one form: OpenAI's messages with tools and weights, ShareGPT's from and value.

A turn's keys are text for the model, or say how it is trained. So an unknown key of a turn is refused, never
dropped; null and empty ones say nothing.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from data.readers.tables import RowError, describe

ROLES = ("system", "user", "assistant", "tool")
ALIASES = {"developer": "system"}  # OpenAI's newer name
SPEAKERS = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
SPEAKERS |= {"observation": "tool", "tool": "tool", "function_call": "assistant"}
ABSENT = (None, "", [], {})
KEYS_READ = {"assistant": {"weight", "tool_calls"}, "tool": {"tool_call_id", "name"}}  # besides role and content
Turn = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """The turns before the answer, and the answer."""

    prompt: list[Turn]  # role and content; of an answer also tool_calls, of a tool's result tool_call_id and name
    answer: Turn
    weights: dict[int, int] = field(default_factory=dict)  # of answers in `prompt`, where the row says them


def messages(raw: list, key: str, where: str) -> Conversation:
    """The turns of OpenAI's form: role and content."""
    turns = [_turn(turn, f"{key}[{index}]", where) for index, turn in enumerate(raw)]
    weights = {index: turn.pop("weight") for index, turn in enumerate(turns) if "weight" in turn}
    return conversation(turns, weights, key, where)


def conversation(turns: list[Turn], weights: dict[int, int], key: str, where: str) -> Conversation:
    """The turns up to the last answer that is learned; later turns are left out."""
    used, unlearned = turns, None
    while used and used[-1]["role"] == "assistant" and weights.get(len(used) - 1) == 0:
        unlearned, used = used, used[:-1]
        while used and used[-1]["role"] != "assistant":
            used = used[:-1]
    if unlearned and not used:
        raise RowError(where, f"`{key}` has no answer to learn: each has the weight 0", "give one the weight 1, or drop the row")
    roles = [turn["role"] for turn in used]
    if roles[-1:] != ["assistant"] or roles[-2:-1] not in (["user"], ["tool"]) or "user" not in roles:
        last_roles = ", ".join(roles[-6:]) or "none"
        raise RowError(where, f"`{key}` has the roles {last_roles}", "end it with a user turn and the assistant's answer")
    if "system" in roles[1:]:
        raise RowError(where, f"`{key}` has a system turn that is not the first", "move it to the front, or make it a user turn")
    return Conversation(used[:-1], used[-1], {index: weight for index, weight in weights.items() if index < len(used) - 1})


def sharegpt(raw: list, key: str, where: str) -> Conversation:
    """The turns of ShareGPT's form: from and value. A tool's call is JSON there."""
    if raw and all(isinstance(turn, dict) and "role" in turn for turn in raw):
        return messages(raw, key, where)
    return messages([_speaker(turn, f"{key}[{index}]", where) for index, turn in enumerate(raw)], key, where)


def _speaker(turn: object, name: str, where: str) -> object:
    if not isinstance(turn, dict):
        return turn
    speaker = turn.get("from")
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        raise RowError(where, f"`{name}.from` is {describe(speaker)}", f"use one of {', '.join(SPEAKERS)}")
    rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
    if speaker == "function_call":
        calls = _json(turn.get("value"), f"{name}.value", where)
        return rest | {"role": "assistant", "content": "", "tool_calls": calls if isinstance(calls, list) else [calls]}
    return rest | {"role": SPEAKERS[speaker], "content": turn.get("value")}


def _turn(turn: object, name: str, where: str) -> Turn:
    if not isinstance(turn, dict):
        raise RowError(where, f"`{name}` is {describe(turn)}", "make it an object with role and content")
    role = turn.get("role")
    role = ALIASES.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise RowError(where, f"`{name}.role` is {describe(role)}", f"use one of {', '.join(ROLES)}")
    other_keys = {key: value for key, value in turn.items() if key not in ("role", "content") and value not in ABSENT}
    if unread := sorted(str(key) for key in other_keys if key not in KEYS_READ.get(role, ())):
        what = f"`{name}.{unread[0]}` is not read, and leaving it out may change the conversation"
        raise RowError(where, what, "take it out, or write it into `content` as the model's template would")
    calls = [
        _call(call, f"{name}.tool_calls[{index}]", where) for index, call in enumerate(_list(other_keys.pop("tool_calls", []), name, where))
    ]
    content = _content(turn.get("content"), f"{name}.content", where, empty=bool(calls) or role == "tool")
    return {"role": role, "content": content} | ({"tool_calls": calls} if calls else {}) | _checked_weight(other_keys, name, where)


def _checked_weight(keys: dict, name: str, where: str) -> dict:
    if "weight" in keys and (keys["weight"] not in (0, 1) or isinstance(keys["weight"], bool)):
        raise RowError(where, f"`{name}.weight` is {describe(keys['weight'])}", "use 1 to learn the answer, 0 not to")
    return keys


def _list(value: object, name: str, where: str) -> list:
    if not isinstance(value, list):
        raise RowError(where, f"`{name}.tool_calls` is {describe(value)}", "make it a list")
    return value


def _content(value: object, name: str, where: str, empty: bool) -> str:
    """A turn's text; OpenAI also writes it in parts."""
    if isinstance(value, list) and value:
        parts = [part.get("text") if isinstance(part, dict) and part.get("type") in ("text", None) else None for part in value]
        if not all(isinstance(part, str) for part in parts):
            raise RowError(where, f"`{name}` has a part that is no text", "leave out images and sound: the model reads text")
        value = "".join(parts)
    if value in ABSENT and empty:
        return ""
    if not isinstance(value, str):
        raise RowError(where, f"`{name}` is {describe(value)}", "make it a string")
    if not value.strip() and not empty:
        raise RowError(where, f"`{name}` is empty", "give it text, or drop the row")
    return value


def _call(call: object, name: str, where: str) -> dict:
    """A tool's call as templates take it: its arguments an object, where OpenAI has their text."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        hint = 'write {"type": "function", "function": {"name": "...", "arguments": {...}}}'
        raise RowError(where, f"`{name}` is no call of a function", hint)
    arguments = function.get("arguments", {})
    arguments = _json(arguments, f"{name}.function.arguments", where) if isinstance(arguments, str) else arguments
    if not isinstance(arguments, dict):
        raise RowError(where, f"`{name}.function.arguments` is {describe(arguments)}", "make it an object, or the JSON of one")
    call_id = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return call_id | {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def tools(value: object, where: str) -> list[dict]:
    """The functions that a model may call, as OpenAI describes them; LLaMA-Factory keeps the JSON of their list."""
    value = _json(value, "tools", where) if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowError(where, f"`tools` is {describe(value)}", "make it a list of functions, each an object")
    functions = [tool if "function" in tool else {"type": "function", "function": tool} for tool in value]
    if nameless := next((tool for tool in functions if not isinstance(tool["function"], dict) or "name" not in tool["function"]), None):
        raise RowError(where, f"`tools` has one without a name: {describe([nameless])}", "give each function its name")
    return functions


def history(value: object, where: str) -> list[Turn]:
    """Alpaca's earlier turns: pairs of what was asked and what was answered."""
    pairs = value if isinstance(value, list) else [value]
    if not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) and text.strip() for text in pair) for pair in pairs
    ):
        raise RowError(where, f"`history` is {describe(value)}", 'make it a list of pairs: [["question", "answer"], ...]')
    return [{"role": role, "content": text} for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]


def _json(text: object, name: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise RowError(where, f"`{name}` is not JSON ({error})", "write it as JSON") from error
