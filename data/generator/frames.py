"""The sentences: by kind of statement, pool (train or held_out) and form (prose or terse), from the files in `frames/`."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from data.generator.draw import Draw

FOLDER = Path(__file__).parent / "frames"
CHOICE = re.compile(r"\[([^\]]*)\]")


@dataclass(frozen=True)
class Frame:
    """A sentence with slots in braces and alternatives in square brackets; its `id` is kind.pool.form and number."""

    id: str
    text: str
    slots: frozenset[str]

    def fill_choices(self, draw: Draw) -> str:
        """The sentence with one alternative of each choice."""
        return CHOICE.sub(lambda choice: draw.one(choice[1].split("|")), self.text)


@cache
def frames(kind: str, pool: str, form: str) -> tuple[Frame, ...]:
    """The sentences of one kind; those of the other form, with or without a full stop, where this form has none."""
    texts = _file(kind)[pool]
    chosen = form if texts.get(form) else ("terse" if form == "prose" else "prose")
    sentences = []
    for number, text in enumerate(texts[chosen]):
        sentence = text if chosen == form else text.removesuffix(".") + "." * (form == "prose")
        sentences.append(Frame(f"{kind}.{pool[0]}.{chosen[0]}{number}", sentence, frozenset(re.findall(r"\{(\w+)\}", text))))
    return tuple(sentences)


@cache
def kinds() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml") if path.stem != "instruction"))


@cache
def instructions(pool: str) -> list[str]:
    return _file("instruction")[pool]


@cache
def _file(kind: str) -> dict:
    return tomllib.loads((FOLDER / f"{kind}.toml").read_text(encoding="utf-8"))
