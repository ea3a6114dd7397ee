"""Write the shipped set: `python -m data.generate` makes the four JSON Lines files beside this module, the same each time.

A row depends on the seed, its split and its number (and, to avoid a repetition, on the rows before it), so the first rows
of a split stay as they are when the split grows.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from data import schema
from data.generator.case import draw_case, label
from data.generator.draw import Draw
from data.generator.knowledge import frames, spellings
from data.generator.note import Note, write

SEED = 1
SHORTEST, LONGEST = 25, 90  # words of a note


@dataclass(frozen=True)
class Split:
    name: str
    rows: int
    pool: str  # whose sentences and instructions it is written with: "train" or "held_out"


SPLITS = [
    Split("train", 1200, "train"),
    Split("validation", 200, "held_out"),
    Split("smoke_train", 32, "train"),
    Split("smoke_validation", 16, "held_out"),
]


def main(folder: Path = Path(__file__).parent) -> None:
    for split in SPLITS:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows(split)]
        (folder / f"{split.name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
        print(f"{split.name}.jsonl: {len(lines)} rows")


def rows(split: Split) -> list[dict]:
    """The rows of `split`, no two notes alike."""
    made, seen = [], set()
    for number in range(split.rows):
        attempt = 0
        while not _usable(row := _row(split, number, attempt), seen):
            attempt += 1
        seen.add(row["input"])
        made.append(row)
    return made


def _usable(row: dict, seen: set[str]) -> bool:
    return row["input"] not in seen and SHORTEST <= len(row["input"].split()) <= LONGEST


def _row(split: Split, number: int, attempt: int) -> dict:
    draw = Draw(SEED, split.name, number, attempt)
    case = draw_case(draw)
    note, answer = write(case, split.pool, draw), label(case)
    check(note, answer)
    return {
        "id": f"{split.name}-{number:04d}",
        "instruction": draw.one(frames()["instruction"][split.pool]),
        "input": note.text,
        "output": answer,
        "meta": {"frames": note.frames, "evidence": note.evidence},
    }


def check(note: Note, answer: dict) -> None:
    """Raise if the answer breaks the schema, or if the record of what the text asserts gives another answer."""
    if not schema.fits(answer, schema.schema()):
        raise ValueError(f"the answer breaks schema.json: {answer}")
    found = {name: [] for name in answer}
    for fact in note.evidence:
        surface = note.text[fact["start"] : fact["end"]].casefold()
        if fact["status"] != "asserted":
            continue
        if surface not in (spelling.casefold() for spelling in spellings(fact["field"], fact["value"])):
            raise ValueError(f"{surface!r} is no spelling of {fact['value']!r} in: {note.text}")
        found[fact["field"]].append(fact["value"])
    expected = {name: value if isinstance(value, list) else [value] if value else [] for name, value in answer.items()}
    if found != expected:
        raise ValueError(f"the text says {found}, the answer {expected}: {note.text}")


if __name__ == "__main__":
    main()
