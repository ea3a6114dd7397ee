"""What is good, doubtful or wrong about rows of any origin, before a run is made of them.

`wrong` is what a run would stop at; `look` is what only their owner can judge.
"""

import filecmp
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from data import likeness, vocabulary
from data.rows import Row, Scan, fields_override, scan
from data.scoring import free_text

BROKEN_ROWS = 20  # broken rows of a file that are listed
ODD = 4  # times the median that make a row odd
NAMED = 12  # values of a field that are all named
EXAMPLES = 5  # of anything else


@dataclass(frozen=True)
class Finding:
    verdict: str  # good, look or wrong
    what: str
    details: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LengthCounter:
    """Counts how long a row's prompt and answer are."""

    measure: Callable[[Row], tuple[int, int]]
    unit: str  # "tokens of OWNER/NAME", or "words"
    note: str = ""  # why these are not tokens
    notes: Callable[[list[Row]], list[str]] = lambda rows: []  # notes about the rows' tokens


@dataclass(frozen=True)
class Limits:
    """What a run would do about long rows; lengths are in tokens."""

    row: int  # data.max_length
    answer: int | None  # data.max_new_tokens; None: by the longest answer
    drop: bool  # leave out rows that are too long, in place of stopping


def count_words(note: str) -> LengthCounter:
    """Counts words, where tokens cannot be counted; `note` says why."""
    return LengthCounter(lambda row: (len(likeness.prompt(row).split()), len(row.completion.split())), "words", note)


KINDS = {str: "text", int: "a number", float: "a number", bool: "true or false", dict: "an object"}


def check_files(
    train: Path,
    held_out: Path,
    fields: list[str] | None,
    length_counter: LengthCounter,
    limits: Limits,
    names: tuple[str, str] | None = None,
    also: dict[str, Path | None] | None = None,
) -> list[Finding]:
    """All findings about a run's two files, those about broken rows first; of the files in `also` only those (None: not to be read here).

    `names` are the files' as their owner calls them.
    """
    files = {"data.train": train, "data.validation": held_out}
    shown_names = dict(zip(files, names or map(str, files.values()), strict=True))
    scans = {setting: scan(path, shown_names[setting]) for setting, path in files.items()}
    findings = [finding for setting, file_scan in scans.items() for finding in usable_rows(setting, shown_names[setting], file_scan)]
    for name, path in (also or {}).items():
        unchecked = [Finding("look", f"data.also: {name} is not checked here: only the trainer reads it")]
        findings += usable_rows("data.also", name, scan(path, name)) if path else unchecked
    rows = {setting: file_scan.rows for setting, file_scan in scans.items() if file_scan.rows}
    for setting, rows_of_file in rows.items():
        findings += [Finding("look", f"{setting}: {line}") for line in length_counter.notes(rows_of_file)]
        findings += [
            *white_space(setting, rows_of_file),
            *without_text(setting, rows_of_file),
            *answer_fields(setting, rows_of_file, fields),
            *lengths(setting, rows_of_file, length_counter, limits),
            *copies(setting, rows_of_file),
        ]
    if filecmp.cmp(train, held_out, shallow=False):
        findings.append(Finding("wrong", "data.train and data.validation are the same rows: the scores would mean nothing"))
    elif len(rows) == len(files):
        findings += leaks(*rows.values())
    return findings + [finding for name in fields or () for finding in [*types(name, rows), *labels(name, rows, fields or [])]]


def usable_rows(setting: str, name: str, file_scan: Scan) -> list[Finding]:
    """Whether all rows of a file can be used, each error with its line and a hint; and which keys are not read."""
    notes = [Finding("look", f"{setting}: {line}") for line in file_scan.notes.lines()]
    if not file_scan.errors:
        return [Finding("good", f"{setting}: {name}, rows: {len(file_scan.rows):,}"), *notes]
    what = f"{setting}: {name}, rows that cannot be used: {len(file_scan.errors):,} (and {len(file_scan.rows):,} that can)"
    return [Finding("wrong", what, _examples([str(error) for error in file_scan.errors], BROKEN_ROWS)), *notes]


def white_space(setting: str, rows: list[Row]) -> list[Finding]:
    """Answers with white space around them, which is learned: a space behind a comma of CSV, a line's end."""
    ids = [row.id for row in rows if row.completion != row.completion.strip()]
    what = f"{setting}: answers that begin or end with white space, which is learned: {len(ids):,} of {len(rows):,}"
    return [Finding("look", what, _examples(ids))] if ids else []


def answer_fields(setting: str, rows: list[Row], fields: list[str] | None) -> list[Finding]:
    """Whether every answer has the fields that are to be scored, each of one type."""
    texts = [row.id for row in rows if row.output is None]
    if fields is None:
        return []
    if texts:
        what = f"{setting}: answers in plain text where data.fields asks for keys of an object: {len(texts):,} of {len(rows):,}"
        return [Finding("wrong", f"{what}; make them objects, or score text: `data.fields=null`", _examples(texts))]
    return [finding for name in fields for finding in _field(setting, rows, name)]


def _field(setting: str, rows: list[Row], name: str) -> list[Finding]:
    lacking = [row.id for row in rows if name not in row.output]
    if len(lacking) == len(rows):
        known_fields = fields_override(sorted({key for row in rows for key in row.output}))
        return [Finding("wrong", f"{setting}: no answer has the field {name!r}; the answers have `{known_fields}`")]
    findings = []
    if lacking:
        what = f"{setting}: answers without the field {name!r}, which count as empty there: {len(lacking):,} of {len(rows):,}"
        findings.append(Finding("look", what, _examples(lacking)))
    kinds = sorted(_kinds(rows, name))
    if len(kinds) > 1:
        findings.append(Finding("look", f"{setting}: {name!r} is sometimes {' and sometimes '.join(kinds)}; use one of them"))
    return findings


def types(name: str, rows: dict[str, list[Row]]) -> list[Finding]:
    """Whether the two files write the values of a field as one type."""
    kinds = {setting: _kinds(rows_of_file, name) for setting, rows_of_file in rows.items()}
    if len(kinds) < 2 or any(len(each) != 1 for each in kinds.values()) or len({*map(frozenset, kinds.values())}) == 1:
        return []
    written = " and ".join(f"{next(iter(each))} in {setting}" for setting, each in kinds.items())
    return [Finding("look", f"{name}: {written}; the model learns to write it as in data.train")]


def _kinds(rows: list[Row], name: str) -> set[str]:
    """What the values of a field are, as JSON has it."""
    return {kind for row in rows if row.output is not None and (kind := _kind(row.output.get(name)))}


def _kind(value: object) -> str:
    """ "" for nothing."""
    if isinstance(value, list):
        inside = sorted({kind for item in value if (kind := _kind(item))})
        return f"a list of {' and '.join(kind.split(' ', 1)[-1] + 's' * (kind != 'text') for kind in inside)}" if inside else ""
    return "" if value is None or value == "" else KINDS[type(value)]


def without_text(setting: str, rows: list[Row]) -> list[Finding]:
    """Rows that have only the instruction, where the others have a text as well."""
    alone = [row.id for row in rows if row.text == row.messages[-1]["content"]]
    if not alone or len(alone) * 2 > len(rows):
        return []
    return [Finding("look", f"{setting}: rows with an instruction and no text: {len(alone):,} of {len(rows):,}", _examples(alone))]


def lengths(setting: str, rows: list[Row], length_counter: LengthCounter, limits: Limits) -> list[Finding]:
    """How long the rows are, and which of them a run would refuse, leave out or cut."""
    sizes = [length_counter.measure(row) for row in rows]
    whole = sorted(map(sum, sizes))
    median, most = whole[len(whole) // 2], whole[int(0.95 * (len(whole) - 1))]
    spread = f"least {whole[0]:,}, median {median:,}, 95 % up to {most:,}, most {whole[-1]:,}"
    what = f"{setting}: length of a row in {length_counter.unit}: {spread}"
    if length_counter.note:
        return [Finding("look", what, [length_counter.note])]
    findings = [Finding("good", what)]
    odd = [f"{row.id}: {sum(size):,}" for row, size in zip(rows, sizes, strict=True) if sum(size) > ODD * max(median, most / 2)]
    if odd:
        findings.append(Finding("look", f"{setting}: rows far longer than all others: {len(odd):,}", _examples(odd)))
    long = [f"{row.id}: {sum(size) - limits.row:,} too many" for row, size in zip(rows, sizes, strict=True) if sum(size) > limits.row]
    if long:
        fate = "they would be left out, none is cut" if limits.drop else "the run would stop; raise it, or say `data.too_long=drop`"
        what = f"{setting}: rows with more tokens than data.max_length={limits.row}: {len(long):,}; {fate}"
        findings.append(Finding("look" if limits.drop else "wrong", what, _examples(long)))
    most_tokens = limits.answer or max(size[1] for size in sizes)
    cut = [f"{row.id}: {size[1] - most_tokens:,} too many" for row, size in zip(rows, sizes, strict=True) if size[1] > most_tokens]
    if cut and setting == "data.validation":
        what = (
            f"{setting}: answers with more tokens than data.max_new_tokens={limits.answer}, after which the model is cut off: {len(cut):,}"
        )
        findings.append(Finding("look", what, _examples(cut)))
    return findings


def copies(setting: str, rows: list[Row]) -> list[Finding]:
    """Rows of one file that say the same, or nearly."""
    same = [_group(group) for group in likeness.copies(rows)]
    near = [f"{first.id}, {second.id}: {share:.0%} of their shingles" for first, second, share in likeness.near_copies(rows)]
    findings = [Finding("look", f"{setting}: prompts that several rows have: {len(same):,}", _examples(same))] if same else []
    findings += [Finding("look", f"{setting}: pairs of rows that are nearly the same: {len(near):,}", _examples(near))] if near else []
    return findings or [Finding("good", f"{setting}: no row is a copy or nearly a copy of another")]


def _group(rows: list[Row]) -> str:
    names = ", ".join(row.id for row in rows[:4])
    return f"{names} (with different answers)" if len({row.completion for row in rows}) > 1 else names


def leaks(train: list[Row], held_out: list[Row]) -> list[Finding]:
    """Held-out rows that training has seen, wholly or in part: their scores measure memory, not skill."""
    same = [f"{row.id} is {source.id}" for row, source in likeness.same_prompts(train, held_out)]
    runs = [f'{row.id}: "{run}"' for row, run in likeness.shared_runs(train, held_out)]
    findings = []
    if same:
        what = f"leak: held-out prompts that are also a training row's: {len(same):,} of {len(held_out):,}"
        findings.append(Finding("look", what, _examples(same)))
    if runs:
        what = f"leak: held-out rows with {likeness.LEAK} words in a row that a training row has: {len(runs):,} of {len(held_out):,}"
        findings.append(Finding("look", what, _examples(runs)))
    return findings or [Finding("good", f"no held-out row has its prompt, or {likeness.LEAK} words in a row, from training")]


def labels(name: str, rows: dict[str, list[Row]], fields: list[str]) -> list[Finding]:
    """What a field's labels say: how many values, how often none, and which look like one value spelled in several ways; or that they are
    sentences."""
    held_out = rows.get("data.validation") or rows.get("data.train", [])
    if words := free_text.word_count((row.output or {}).get(name) for row in held_out):
        what = f"{name}: its answers are sentences, most of some {words} words, and {free_text.MEASURE}; {free_text.instead(name, fields)}"
        return [Finding("look", what)]
    counts = vocabulary.value_counts([row for rows_of_file in rows.values() for row in rows_of_file], name)
    if not counts:
        return []
    new = set(counts) - set(vocabulary.value_counts(rows.get("data.train", []), name))
    empty = " and ".join(
        f"{sum(not vocabulary.items(row, name) for row in rows_of_file) / len(rows_of_file):.0%}" for rows_of_file in rows.values()
    )
    often = ", ".join(f"{value} ({count:,})" for value, count in counts.most_common(3 if len(counts) > NAMED else NAMED))
    what = f"{name}: {len(counts):,} values, {len(new):,} of them in held-out rows only; empty in {empty}; most often {often}"
    spelling_groups = [" | ".join(f"{value} ({count:,})" for value, count in group[:6]) for group in vocabulary.variants(counts)]
    if spelling_groups:
        return [Finding("look", f"{what}; spelled in several ways: {len(spelling_groups):,}", _examples(spelling_groups))]
    return [Finding("good", what)]


def text(findings: Iterable[Finding]) -> str:
    """The findings as a page for the terminal."""
    lines = [[f"{finding.verdict:<6}{finding.what}", *(f"{'':10}{detail}" for detail in finding.details)] for finding in findings]
    return "\n".join(line for part in lines for line in part)


def _examples(lines: list[str], shown: int = EXAMPLES) -> list[str]:
    return lines[:shown] + ([f"... and {len(lines) - shown:,} more"] if len(lines) > shown else [])
