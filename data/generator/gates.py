"""What the set must be to be worth training on: one function a gate, each with its measured figure. A gate that fails, fails the build.

`python -m data.generator.gates` prints the table that README.md holds, measured on the files.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data import schema
from data.generator.case import SCALARS
from data.generator.check import derive
from data.generator.knowledge import held_out, marker_name
from data.generator.likeness import Likeness, normal, runs_of
from data.generator.shelf import ACROSS, LONG_RUN, TELLING, WITHIN, telling

Rows = dict[str, list[dict]]
HELD_OUT = ("validation", "test_template", "test_both")  # frames, headings and instructions that no training note has
EMPTY = {"cancer_type": (0.02, 0.03), "stage": (0.2, 0.3), "gene_mutation": (0.3, 0.4), "biomarker": (0.25, 0.35)} | {
    "treatment": (0.09, 0.15),
    "response": (0.2, 0.3),
    "metastasis_site": (0.4, 0.5),
}
SHARES = {
    "negated": 0.4,
    "revised": 0.2,
    "hedged": 0.2,
    "family": 0.2,
    "prior": 0.12,
    "comorbidity": 0.5,
    "not_given": 0.25,
    "pending": 0.15,
    "lines": 0.35,
    "response_replaced": 0.2,
    "stage_replaced": 0.1,
    "lesions": 0.15,
    "abbreviation": 0.5,
    "brand": 0.1,
    "hgvs": 0.1,
    "unit": 0.3,
    "distance": 0.25,
}
VOCABULARY = {"cancer_type": 24, "gene_mutation": 60, "treatment": 110, "metastasis_site": 12}


@dataclass(frozen=True)
class Gate:
    name: str
    wanted: str
    measured: str
    holds: bool


def measure(sets: Rows) -> list[Gate]:
    """Every gate with its figure; `sets` holds the rows of each file, by the file's name."""
    return [gate for function in GATES for gate in function(sets)]


def at_most(name: str, value: float, limit: float, form: Callable[[float], str] = "{:.3f}".format) -> Gate:
    return Gate(name, f"<= {form(limit)}", form(value), value <= limit)


def at_least(name: str, value: float, limit: float, form: Callable[[float], str] = "{:.3f}".format) -> Gate:
    return Gate(name, f">= {form(limit)}", form(value), value >= limit)


def between(name: str, value: float, low: float, high: float, form: Callable[[float], str] = "{:.3f}".format) -> Gate:
    return Gate(name, f"{form(low)} to {form(high)}", form(value), low <= value <= high)


def percent(value: float) -> str:
    return f"{value:.1%}"


def count(value: float) -> str:
    return f"{value:,.0f}"


def duplicates(sets: Rows) -> list[Gate]:
    notes = Counter(normal(row["input"]) for rows in sets.values() for row in rows)
    return [at_most("notes that stand twice, in all files", sum(notes.values()) - len(notes), 0, count)]


def nearness(sets: Rows) -> list[Gate]:
    likeness, most = Likeness(), {True: 0.0, False: 0.0}
    for name, row in ((name, row) for name, rows in sets.items() for row in rows):
        note = normal(row["input"])
        for other, value in likeness.alike(note, min(most[False], ACROSS)):
            most[other == name] = max(most[other == name], value)
        likeness.add(name, note)
    return [
        at_most("most alike notes of two files (Jaccard of 3-shingles)", most[False], ACROSS),
        at_most("most alike notes of one file", most[True], WITHIN),
    ]


def long_runs(sets: Rows) -> list[Gate]:
    training_runs = {run for row in sets["train"] for run in runs_of(normal(row["input"]), LONG_RUN)}
    gates = []
    for name in HELD_OUT:
        sharing = sum(bool(runs_of(normal(row["input"]), LONG_RUN) & training_runs) for row in sets[name])
        gates.append(at_most(f"{name} notes that share 13 words in a row with train", sharing / len(sets[name]), 0.02, percent))
    return gates


def shared_frames(sets: Rows) -> list[Gate]:
    frames = {name: {frame for row in rows for frame in row["meta"]["frames"]} for name, rows in sets.items()}
    instructions_of = {name: {row["instruction"] for row in rows} for name, rows in sets.items()}
    both = sum(len(frames["train"] & frames[name]) for name in HELD_OUT)
    instructions = sum(len(instructions_of["train"] & instructions_of[name]) for name in HELD_OUT)
    return [
        at_most(f"frames that train shares with {', '.join(HELD_OUT)}", both, 0, count),
        at_most("instructions that it shares with them", instructions, 0, count),
        at_least("instructions in train", len(instructions_of["train"]), 24, count),
        at_least("instructions in validation", len(instructions_of["validation"]), 8, count),
        at_least("frames used in train", len(frames["train"]), 900, count),
        at_least("frames used in the held-out files", len(set().union(*(frames[name] for name in HELD_OUT))), 400, count),
    ]


def answers(sets: Rows) -> list[Gate]:
    where: dict[str, set[str]] = {}
    for name, rows in sets.items():
        for row in rows:
            where.setdefault(telling(row["output"]), set()).add(name)
    twice = sum(len(names) > 1 for answer, names in where.items() if answer)
    return [at_most(f"answers with {TELLING} or more fields filled that stand in two files", twice, 0, count)]


def support(sets: Rows) -> list[Gate]:
    right = sum(_supported(row) for rows in sets.values() for row in rows)
    valid = sum(schema.fits(row["output"], schema.schema()) for rows in sets.values() for row in rows)
    total = sum(map(len, sets.values()))
    return [
        at_least("answers that the recorded spans give again", right / total, 1, percent),
        at_least("answers that follow schema.json", valid / total, 1, percent),
    ]


def _supported(row: dict) -> bool:
    derived = derive(row["input"], row["meta"]["evidence"])
    return all(sorted(derived[name]) == sorted(_values(row, name)) for name in derived)


def _values(row: dict, name: str) -> list[str]:
    value = row["output"][name]
    return value if isinstance(value, list) else [value] if value else []


def vocabulary(sets: Rows) -> list[Gate]:
    train = sets["train"]
    values = {name: {value for row in train for value in _values(row, name)} for name in schema.fields()}
    kinds = {marker_name(value) for value in values["biomarker"]}
    types = Counter(row["output"]["cancer_type"] for row in train if row["output"]["cancer_type"])
    gates = [at_least(f"different values of {name} in train", len(values[name]), least, count) for name, least in VOCABULARY.items()]
    gates.append(at_least("different markers in train", len(kinds), 20, count))
    gates.append(at_most(f"most frequent cancer ({_first(types)[0]})", _first(types)[1] / len(train), 0.08, percent))
    return gates


def habits(sets: Rows) -> list[Gate]:
    """How far knowing the cancer gives the rest away, over the training notes of each cancer."""
    by_cancer: dict[str, list[dict]] = {}
    for row in sets["train"]:
        by_cancer.setdefault(row["output"]["cancer_type"], []).append(row)
    by_cancer.pop(None, None)
    gates = []
    for name in schema.fields()[1:]:
        shares = {
            f"{value}, {cancer}": number / len(rows)
            for cancer, rows in by_cancer.items()
            for value, number in Counter(value for row in rows for value in _values(row, name)).items()
        }
        most = min(shares, key=lambda key: (-shares[key], key))
        gates.append(at_most(f"most likely {name} given the cancer ({most})", shares[most], 0.45))
    return gates


def emptiness(sets: Rows) -> list[Gate]:
    train = sets["train"]
    gates = [
        between(f"{name} empty in train", sum(not row["output"][name] for row in train) / len(train), low, high, percent)
        for name, (low, high) in EMPTY.items()
    ]
    numbers = {sum(not value for value in row["output"].values()) for row in train}
    gates.append(at_least("different numbers of empty fields in a row (0 to 7)", len(numbers), 8, count))
    for name in [name for name in schema.fields() if name not in SCALARS]:
        lengths = {len(row["output"][name]) for row in train} - {0}
        gates.append(at_least(f"most values of {name} in a row", max(lengths), 4, count))
    return gates


def phenomena(sets: Rows) -> list[Gate]:
    train = sets["train"]
    counts = Counter(name for row in train for name in row["meta"]["phenomena"])
    numbers = [len(set(row["meta"]["phenomena"]) - {"noise"}) for row in train]
    gates = [at_least(f"notes with: {name}", counts[name] / len(train), least, percent) for name, least in SHARES.items()]
    return [
        *gates,
        at_least("notes with two phenomena or more", sum(number > 1 for number in numbers) / len(train), 0.7, percent),
        between("notes with none", sum(number == 0 for number in numbers) / len(train), 0.1, 0.15, percent),
        between("notes with something that their cancer seldom has", counts["unusual"] / len(train), 0.1, 0.15, percent),
        between("notes with surface noise", counts["noise"] / len(train), 0.1, 0.15, percent),
    ]


def variety(sets: Rows) -> list[Gate]:
    notes = [normal(row["input"]).split() for row in sets["train"]]
    fours = Counter(" ".join(words[at : at + 4]) for words in notes for at in range(len(words) - 3))
    eights = Counter(run for words in notes for run in runs_of(" ".join(words), 8))
    starts = Counter(" ".join(words[:3]) for words in notes)
    eight, start = _first(eights), _first(starts)
    return [
        at_least("distinct 4-grams of train", len(fours) / sum(fours.values()), 0.6),
        at_most(f'most frequent 8-gram ("{eight[0]}")', eight[1] / len(notes), 0.01, percent),
        at_most(f'most frequent first three words ("{start[0]}")', start[1] / len(notes), 0.04, percent),
    ]


def _first(counts: Counter[str]) -> tuple[str, int]:
    """The most frequent item, of equals the first in the alphabet: the order in a set is another in each process."""
    return min(counts.items(), key=lambda item: (-item[1], item[0]))


def lengths(sets: Rows) -> list[Gate]:
    words = sorted(len(row["input"].split()) for row in sets["train"])
    smoke = [len(row["input"].split()) for name in ("smoke_train", "smoke_validation") for row in sets[name]]
    return [
        at_least("words of the shortest note", words[0], 25, count),
        between("words of the middle note", words[len(words) // 2], 85, 105, count),
        at_most("words of the longest note", words[-1], 350, count),
        at_most("words of the longest smoke note", max(smoke), 90, count),
    ]


def styles(sets: Rows) -> list[Gate]:
    counts = Counter(row["meta"]["style"] for row in sets["train"])
    return [
        at_least("styles", len(counts), 8, count),
        at_least("share of the rarest style", min(counts.values()) / len(sets["train"]), 0.05, percent),
    ]


def entities(sets: Rows) -> list[Gate]:
    unknown = held_out()
    leaked = sum(fact[1] in unknown for name, rows in sets.items() if name not in NEW for row in rows for fact in row["meta"]["evidence"])
    has_unknown = [any(value in unknown for field in row["output"] for value in _values(row, field)) for name in NEW for row in sets[name]]
    return [
        at_most(f"held-out values named outside of {' and '.join(NEW)}", leaked, 0, count),
        at_least("rows of these with one in the answer", sum(has_unknown) / len(has_unknown), 1, percent),
    ]


def names(sets: Rows) -> list[Gate]:
    pattern = re.compile(r"\b(Mr|Mrs|Ms|Dr|Prof)\.? [A-Z][a-z]+")
    return [
        at_most("notes that name a person", sum(bool(pattern.search(row["input"])) for rows in sets.values() for row in rows), 0, count)
    ]


NEW = ("test_entity", "test_both")
GATES = [
    duplicates,
    nearness,
    long_runs,
    shared_frames,
    answers,
    support,
    vocabulary,
    habits,
    emptiness,
    phenomena,
    variety,
    lengths,
    styles,
]
GATES += [entities, names]


def table(gates: list[Gate]) -> str:
    """The gates as the rows of a Markdown table."""
    return "\n".join(f"| {gate.name} | {gate.wanted} | {gate.measured} |{'' if gate.holds else ' FAILS'}" for gate in gates)


def shipped(folder: Path) -> Rows:
    """The rows of the files that manifest.json lists."""
    files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    return {Path(name).stem: [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()] for name in files}


if __name__ == "__main__":
    print(table(measure(shipped(Path(schema.__file__).parent))))
