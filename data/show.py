"""Rows as a reader wants them: the text with every recorded fact in its field's colour, and what is no label crossed out."""

import random

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from data.rows import Fact, Row
from data.vocabulary import items

COLOURS = ("cyan", "magenta", "green", "yellow", "bright_blue", "bright_red", "bright_cyan")


def show(rows: list[Row], fields: list[str] | None, count: int, seed: int | None) -> None:
    """Print `count` random rows, others each time unless `seed` is given."""
    console = Console(highlight=False)
    for row in random.Random(seed).sample(rows, min(count, len(rows))):
        console.print(page(row, fields or list(row.output or {})))


def page(row: Row, fields: list[str]) -> Panel:
    """One row: its instruction, its text, its answer, and what `meta` records."""
    colours = {field: COLOURS[index % len(COLOURS)] for index, field in enumerate(fields)}
    prompt_text = row.messages[-1]["content"]
    instruction = prompt_text.removesuffix(row.text).strip() if prompt_text != row.text else ""
    parts = [Text(instruction, "italic"), Text()] if instruction else []
    parts += [marked(row, colours), Text(), *_answer(row, colours), *_status_lines(row)]
    title = " · ".join([row.id, *(str(row.meta[key]) for key in ("split", "style") if key in row.meta)])
    return Panel(Group(*parts), title=Text(title), title_align="left")


def marked(row: Row, colours: dict[str, str]) -> Text:
    """The row's text with its evidence: labels bold in their field's colour, distractors dim and crossed out."""
    text = Text(row.text)
    for fact in _located_facts(row):
        colour = colours.get(fact.field, "white")
        text.stylize(f"bold {colour}" if fact.status == "asserted" else f"dim strike {colour}", fact.start, fact.end)
    return text


def _answer(row: Row, colours: dict[str, str]) -> list[Text]:
    if row.output is None:
        return [Text.assemble(("answer  ", "bold"), row.completion)]
    return [Text.assemble((f"{name:<18}", f"bold {colours.get(name, 'white')}"), "; ".join(items(row, name)) or "–") for name in row.output]


def _status_lines(row: Row) -> list[Text]:
    """What colours cannot show: each distractor with its status, and the row's phenomena."""
    distractors = [f'"{row.text[fact.start : fact.end]}" {fact.status}' for fact in _located_facts(row) if fact.status != "asserted"]
    lines = [("not labels", "; ".join(distractors))] if distractors else []
    lines += [("phenomena", ", ".join(row.phenomena))] if row.phenomena else []
    return [Text.assemble((f"{name:<18}", "dim"), (value, "dim")) for name, value in lines]


def _located_facts(row: Row) -> list[Fact]:
    return [fact for fact in row.evidence or () if isinstance(fact.start, int) and isinstance(fact.end, int)]
