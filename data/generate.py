"""Write the shipped set: `python -m data.generate` makes the JSON Lines files and the manifest beside this module, the same each time.

A row depends on the seed, its split and its number, and, to avoid repetitions, on the rows made before it. The training rows are
made last, so the first rows of the training set stay as they are when it grows, and the other files do not notice.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.generator import gates, manifest, noise, phenomena
from data.generator.case import draw_case, label
from data.generator.check import check_evidence
from data.generator.draw import Draw
from data.generator.frames import instructions
from data.generator.knowledge import held_out
from data.generator.note import write
from data.generator.plan import arrange
from data.generator.shelf import Repetitions

SEED, VERSION = 1, 2
SHORTEST, LONGEST, LONGEST_SMOKE = 25, 350, 90  # words of a note


@dataclass(frozen=True)
class Split:
    name: str
    rows: int
    pool: str  # whose sentences, headings and instructions it is written with: "train" or "held_out"
    entities: str = "known"  # or "all": each row also has a cancer, alteration or treatment that no training note names
    longest: int = LONGEST


SPLITS = [
    Split("validation", 500, "held_out"),
    Split("test_template", 500, "held_out"),
    Split("test_both", 250, "held_out", "all"),
    Split("test_id", 500, "train"),
    Split("test_entity", 250, "train", "all"),
    Split("smoke_validation", 16, "held_out", longest=LONGEST_SMOKE),
    Split("smoke_train", 32, "train", longest=LONGEST_SMOKE),
    Split("train", 4500, "train"),
]


def main(folder: Path = Path(__file__).parent) -> None:
    sets = make(SPLITS)
    failed = [gate for gate in gates.measure(sets) if not gate.holds]
    for name, rows in sets.items():
        lines = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8", newline="\n")
        print(f"{name}.jsonl: {len(rows)} rows")
    manifest.write(folder, sets, SEED, VERSION)
    for gate in failed:
        print(f"gate {gate.name}: {gate.measured}, wanted {gate.wanted}", file=sys.stderr)
    if failed:
        sys.exit(1)


def make(splits: list[Split]) -> dict[str, list[dict]]:
    """The rows of each split, each row unlike those of the splits before and those before it."""
    repetitions = Repetitions()
    return {split.name: list(rows(split, repetitions)) for split in splits}


def rows(split: Split, repetitions: Repetitions) -> Iterator[dict]:
    """The rows of `split`, drawn again until they are new to `shelf`."""
    for number in range(split.rows):
        attempt = 0
        while not _usable(row := _row(split, number, attempt), split) or not repetitions.add_if_new(row, split.pool):
            attempt += 1
        yield row


def _usable(row: dict, split: Split) -> bool:
    long_enough = SHORTEST <= len(row["input"].split()) <= split.longest
    return long_enough and (split.entities == "known" or bool(row["meta"]["entities"]))


def _row(split: Split, number: int, attempt: int) -> dict:
    seed = f"{SEED}/{split.name}/{number}/{attempt}"
    draw = Draw(seed)
    case = draw_case(draw, split.entities, short=split.longest == LONGEST_SMOKE)
    note = write(case, arrange(case, split.pool, draw), split.pool, draw)
    noise.disturb(note, draw)
    (text, evidence), answer = note.render(), label(case)
    check_evidence(text, evidence, answer)
    values = {
        value for field_value in answer.values() for value in (field_value if isinstance(field_value, list) else [field_value]) if value
    }
    meta = {"split": split.name, "style": note.style, "seed": seed, "entities": sorted(values & held_out())}
    return {
        "id": f"{split.name}-{number:04d}",
        "instruction": draw.one(instructions(split.pool)),
        "input": text,
        "output": answer,
        "meta": meta | {"frames": note.frames, "phenomena": phenomena.tags(case, note), "evidence": evidence},
    }


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
