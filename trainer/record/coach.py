"""What a finished run's answers say about the next one: what is wrong, grouped by field and kind, each with what helps. Without torch."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data import score
from data.scoring import free_text, misses
from data.scoring.count import token_f1
from data.scoring.misses import Group, Miss
from trainer import files

WORDS = {
    "format": "right, in another form",
    "invented": "invented where it is empty",
    "added": "a value too many",
    "missed": "missed",
    "spelling": "another spelling",
    "unit": "wrong unit or decimal point",
    "value": "wrong value",
}
BROKEN, CUT = "no JSON object", "cut off before its end"
SENTENCES = "sentences in other words"
WHOLE = "the whole answer"
SHOWN = 8  # groups; the others are counted


@dataclass(frozen=True)
class Advice:
    """Misses of one field and kind, and what to do about them."""

    field: str
    what: str  # the kind, in words
    count: int
    rows: int
    example: Miss
    do: str

    @property
    def headline(self) -> str:
        return f"{self.field}: {self.what}, {self.count}x" + (f" in {self.rows} rows" if self.rows not in (1, self.count) else "")


@dataclass(frozen=True)
class Coach:
    """What is wrong with a run's answers, the most frequent first."""

    advice: list[Advice]
    misses: int
    wrong_rows: int
    rows: int

    @property
    def share(self) -> str:
        """How many of the misses the first two kinds make, where there are more."""
        top = sum(each.count for each in self.advice[:2])
        return f"; the first two kinds are {top / self.misses:.0%} of them" if len(self.advice) > 2 else ""

    @property
    def headline(self) -> str:
        return f"{self.misses} misses in {self.wrong_rows} of {self.rows} rows{self.share}"


def of_folder(folder: Path, metrics: dict) -> Coach | None:
    """What is wrong with the answers of the run in `folder`; None for free text, whose answers have no fields."""
    return of(files.read_json_lines(folder / "predictions.jsonl"), metrics)


def of(predictions: list[dict], metrics: dict) -> Coach | None:
    if metrics["task"] != "extraction":
        return None
    fields, answered = list(metrics["tuned"].get("fields", {})), [row for row in predictions if isinstance(row.get("tuned"), str)]
    found = [
        miss for row in answered for miss in misses.of_row(row["id"], _text(row), row["tuned"], score.parse(row["expected"]) or {}, fields)
    ]
    prose = {name for name in fields if free_text.word_count((score.parse(row["expected"]) or {}).get(name) for row in answered)}
    advice = [_advice(group, metrics) for group in misses.groups(miss for miss in found if miss.field not in prose)]
    advice += [_of_sentences(name, members, answered, fields) for name in prose if (members := [m for m in found if m.field == name])]
    advice.sort(key=lambda each: -each.count)
    return Coach(advice, len(found), len({miss.row for miss in found}), len(answered))


def lines(coach: Coach | None, shown: int = 3) -> list[str]:
    """The same for a terminal."""
    if coach is None or not coach.advice:
        return []
    lines = [f"{coach.headline}; add rows like these to train on, never these"]
    for each in coach.advice[:shown]:
        example = each.example
        told = f"{example.row}: {_quoted(example.predicted)} in place of {_quoted(example.expected)}"
        lines += [f"  {each.headline}; {told}", f"    {each.do}"]
    return lines


def _advice(group: Group, metrics: dict) -> Advice:
    example = group.misses[0]
    if group.field == misses.WHOLE:
        cut = sum(miss.predicted.lstrip().startswith("{") for miss in group.misses) * 2 > len(group.misses)
        return Advice(WHOLE, CUT if cut else BROKEN, len(group.misses), group.rows, example, _of_form(cut))
    return Advice(group.field, WORDS[group.kind], len(group.misses), group.rows, example, DO[group.kind](group, metrics))


def _of_sentences(name: str, found: list[Miss], answered: list[dict], fields: list[str]) -> Advice:
    """How far the words agree, where exact match counts every other wording as wrong."""
    pairs = [[(score.parse(row[side]) or {}).get(name) or "" for side in ("tuned", "expected")] for row in answered]
    agreed = sum(token_f1(*(score.normalise(str(text)) for text in pair)) for pair in pairs) / len(pairs)
    do = f"{free_text.MEASURE}: the words agree to {agreed:.0%} (token F1); read some; {free_text.instead(name, fields)}"
    return Advice(name, SENTENCES, len(found), len({miss.row for miss in found}), found[0], do)


def _of_form(cut: bool) -> str:
    longer = "raise `data.max_new_tokens` where they stop in the middle; " if cut else ""
    return f"{longer}train on more rows or for more `train.epochs`; or hold answers to the keys: `inv predict TEXT --schema auto`"


def _invented(group: Group, metrics: dict) -> str:
    known = metrics.get("training") or {}
    empty = (known.get("empty") or {}).get(group.field)
    have = f"{empty:,} of {known['rows']:,} training rows leave it empty: " if empty is not None else ""
    return f"{have}add rows like {group.misses[0].row}, and say in the instruction that what the text lacks is null{_check(group)}"


def _added(group: Group, metrics: dict) -> str:
    return f"add rows like {group.misses[0].row}, and say in the instruction what does not belong there{_check(group)}"


def _missed(group: Group, metrics: dict) -> str:
    return f"add rows that say it as {_rows(group)} do; the instruction may name where it stands"


def _spelling(group: Group, metrics: dict) -> str:
    return "write each value in one spelling in all labels: `inv data.check` lists those with several; or map spellings after answering"


def _unit(group: Group, metrics: dict) -> str:
    return f"say unit and decimals in the instruction, and add rows with each unit, like {_rows(group)}"


def _format(group: Group, metrics: dict) -> str:
    return "say the form in the instruction and keep to it in all labels; or convert it after answering, as the value is right"


def _value(group: Group, metrics: dict) -> str:
    (mine, right), times = Counter((miss.predicted, miss.expected) for miss in group.misses).most_common(1)[0]
    if times > 1 and times * 3 >= len(group.misses):
        return f"{_quoted(right)} was answered as {_quoted(mine)} {times} times: add rows that have {_quoted(right)}, like {_rows(group)}"
    inside = sum(bool(miss.in_text) for miss in group.misses)
    if inside * 2 >= len(group.misses):
        are = "it is another value" if len(group.misses) == 1 else f"{inside} of {len(group.misses)} are other values"
        return f"{are} of the same text: add rows with several to choose from, like {_rows(group)}"
    return f"add rows like {_rows(group)}{_check(group)}"


DO = {
    "format": _format,
    "invented": _invented,
    "added": _added,
    "missed": _missed,
    "spelling": _spelling,
    "unit": _unit,
    "value": _value,
}


def _check(group: Group) -> str:
    """That a check would find values which the texts do not hold; empty where they hold all."""
    nowhere = group.out_of_nowhere
    return f"; {nowhere} of {len(group.misses)} stand nowhere in the text: a check for that finds them" if nowhere else ""


def _rows(group: Group) -> str:
    names = list(dict.fromkeys(miss.row for miss in group.misses))
    return " and ".join(names[:2])


def _quoted(text: str, most: int = 60) -> str:
    return "nothing" if not text.strip() else f'"{text if len(text) <= most else text[: most - 1] + "…"}"'


def _text(row: dict) -> str:
    """What the model read, without the answer."""
    prompt = row["prompt"]
    return prompt if isinstance(prompt, str) else "\n".join(str(turn["content"]) for turn in prompt)
