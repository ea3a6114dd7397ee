"""Control tokens of a model in a row's own text: an end token after an answer, a prompt that was templated already, a note that forges a
turn. They are reported, and tokenised as plain text unless `data.split_special_tokens=false`.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from data.rows import Row

# Within a control token: the text before and after it is tokenised apart. A lone surrogate: no text of a row can hold one.
MARK = "\udfff"
NAMED = 3  # rows


class ControlTokens:
    """The control tokens of a tokenizer: those that it calls special, and `more`, such as stop tokens."""

    def __init__(self, tokenizer, more: set[str]):
        added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special} | more
        names = sorted((name for name in added if len(name) > 1), key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, names)) if names else r"(?!)")

    def as_text(self, value):
        """The same turns, tools or text, marked so that they are tokenised as text."""
        if isinstance(value, str):
            return self.pattern.sub(lambda token: token[0][0] + MARK + token[0][1:], value)
        if isinstance(value, dict):
            return {key: self.as_text(item) for key, item in value.items()}
        return [self.as_text(item) for item in value] if isinstance(value, list) else value

    def row_as_text(self, row: Row) -> Row:
        if not any(self._of(row)):
            return row
        parts = {name: self.as_text(getattr(row, name)) for name in ("messages", "completion", "tools", "calls")}
        return replace(row, **parts)

    def notes(self, rows: list[Row], split: bool) -> list[str]:
        """A line for each control token and its place, with the rows that have it there."""
        rows_by_token: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            for token_and_part in dict.fromkeys(self._of(row)):
                rows_by_token.setdefault(token_and_part, []).append(row.id)
        return [_note(token, part, ids, split) for (token, part), ids in rows_by_token.items()]

    def _of(self, row: Row) -> Iterator[tuple[str, str]]:
        for part, value in (("prompt", [row.messages, row.tools]), ("answer", [row.completion, row.calls])):
            for text in _texts(value):
                for token in self.pattern.findall(text):
                    yield token, part


def _texts(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _note(token: str, part: str, ids: list[str], split: bool) -> str:
    rows = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else "")
    read = "read as text, since the template writes the model's own (`data.split_special_tokens=false` reads it as a control token)"
    return f"{token!r}, a control token of the model, stands in the {part} of {rows}; it is {read if split else 'read as a control token'}"
