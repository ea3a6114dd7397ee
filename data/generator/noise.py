"""What hands and scanners do to a note: slips, odd hyphens, capitals, missing stops, British spelling. Facts stay readable."""

import re
from dataclasses import replace

from data.generator.draw import Draw
from data.generator.note import Note, Part

NOISY = 0.135  # of the notes
BRITISH = {
    "tumor": "tumour",
    "hemorrhage": "haemorrhage",
    "anemia": "anaemia",
    "edema": "oedema",
    "diarrhea": "diarrhoea",
    "center": "centre",
    "leukopenia": "leucopenia",
    "program": "programme",
}


def disturb(note: Note, draw: Draw) -> None:
    """Change `note` in one to three ways, in the share of notes that `NOISY` says."""
    if not draw.chance(NOISY):
        return
    for name in draw.some(list(WAYS), draw.weighted({1: 5, 2: 3, 3: 1})):
        before = note.parts
        note.parts = WAYS[name](before, draw)
        if note.parts != before:
            note.noise.append(name)


def _slips(parts: list[Part], draw: Draw) -> list[Part]:
    """One to four words outside of facts with two letters swapped, one doubled or one lost."""
    candidates = [number for number, part in enumerate(parts) if not part.fact and re.search(r"\b[a-z]{6,}\b", part.text)]
    changed = list(parts)
    for number in draw.some(candidates, draw.between(1, 4)):
        word = draw.one(list(re.finditer(r"\b[a-z]{6,}\b", changed[number].text)) or [None])
        if word:
            text = changed[number].text
            changed[number] = replace(changed[number], text=text[: word.start()] + _slip(word[0], draw) + text[word.end() :])
    return changed


def _slip(word: str, draw: Draw) -> str:
    at = draw.between(1, len(word) - 3)
    return draw.one(
        [
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[: at + 1] + word[at:],
            word[:at] + word[at + 1 :],
        ]
    )


def _hyphens(parts: list[Part], draw: Draw) -> list[Part]:
    """Every hyphen between letters or digits is a non-breaking one."""
    return [replace(part, text=re.sub(r"(?<=\w)-(?=\w)", "\u2011", part.text)) for part in parts]


def _broken(parts: list[Part], draw: Draw) -> list[Part]:
    """One or two long words outside of facts are broken across lines, as a scanner leaves them."""
    candidates = [number for number, part in enumerate(parts) if not part.fact and re.search(r"\b[a-z]{8,}\b", part.text)]
    changed = list(parts)
    for number in draw.some(candidates, draw.between(1, 2)):
        word, text = re.search(r"\b[a-z]{8,}\b", changed[number].text), changed[number].text
        cut = word.start() + draw.between(3, len(word[0]) - 3)
        changed[number] = replace(changed[number], text=f"{text[:cut]}-\n{text[cut:]}")
    return changed


def _shouting(parts: list[Part], draw: Draw) -> list[Part]:
    return [replace(part, text=part.text.upper()) if part.kind == "heading" else part for part in parts]


def _stopless(parts: list[Part], draw: Draw) -> list[Part]:
    """Full stops at the end of a line are gone."""
    return [
        replace(part, text=part.text[:-1]) if not part.fact and part.text.endswith(".") and _ends_line(parts, number) else part
        for number, part in enumerate(parts)
    ]


def _ends_line(parts: list[Part], number: int) -> bool:
    return number + 1 == len(parts) or parts[number + 1].text.startswith("\n")


def _british(parts: list[Part], draw: Draw) -> list[Part]:
    words = re.compile("|".join(BRITISH))
    return [part if part.fact else replace(part, text=words.sub(lambda word: BRITISH[word[0]], part.text)) for part in parts]


WAYS = {"slips": _slips, "hyphens": _hyphens, "broken": _broken, "shouting": _shouting, "stopless": _stopless, "british": _british}
