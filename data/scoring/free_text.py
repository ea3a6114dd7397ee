"""Fields whose answers are sentences: two of them may say the same in other words, so that an exact match measures little."""

from collections.abc import Iterable
from statistics import median

from data.rows import fields_override
from data.scoring.values import normalise

WORDS = 8  # of a value, from which it is a sentence
FEW = 4  # values: too few to say anything about them
DIFFERENT = 0.8  # share of the values: what is said again and again is a label, however long
MEASURE = "exact match is the wrong measure for sentences"


def word_count(values: Iterable[object]) -> int | None:
    """How many words the field's values usually have, where they are sentences; else None."""
    said = [value for value in values if value not in (None, "", [])]
    texts = [normalise(value) for value in said if isinstance(value, str)]
    if len(texts) < FEW or len(texts) < len(said) or len(set(texts)) < DIFFERENT * len(texts):
        return None
    words = int(median(len(text.split()) for text in texts))
    return words if words >= WORDS else None


def instead(name: str, fields: list[str]) -> str:
    """What to do about the field of this name."""
    others = [each for each in fields if each != name]
    alone = f"`{fields_override(others)}` scores the other fields alone; " if others else ""
    return f"{alone}rows with nothing but {name} as their answer are scored word by word: `data.fields=null`"
