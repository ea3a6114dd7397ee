"""What a field of an answer says, whatever way it is written down: a set of normalised strings.

Case, white space, Unicode compatibility forms and the many dashes carry no meaning. Nothing else is mapped: the shipped labels
are canonical, so "Keytruda" where `pembrolizumab` is asked for is a wrong answer, not another spelling of the right one.

The four list fields of the shipped task may also be flat strings, as in files that write {"treatment": "FOLFOX; bevacizumab"}.
Such a string is split at `;` `,` ` and ` ` plus ` and `+`, but not inside brackets, not at the comma of 1,200 and not at the
plus of "ER+"; `none` as an item is nothing. Every other field's string is one value, compared whole.
"""

import json
import re
import unicodedata

LISTS = {"gene_mutation", "biomarker", "treatment", "metastasis_site"}  # the fields of schema.json that are lists
DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")  # NFKC leaves them apart
OUTSIDE_BRACKETS = r"(?![^()]*\))"
JOINTS = re.compile(rf"(?:;|,(?!\d{{3}}\b)|\s(?:and|plus|\+)\s|(?<=\w)\+(?=\w)){OUTSIDE_BRACKETS}", re.IGNORECASE)
STAGE = re.compile(r"(?:stage )?(0|iv|i{1,3})(?:[abc]\d?)?")


def values(field_value: object, name: str = "") -> set[str]:
    """The set of normalised strings that the value of the field `name` stands for: none for null, "" and []."""
    if isinstance(field_value, str) and name in LISTS:
        return {text for text in map(normalise, JOINTS.split(field_value)) if text not in ("", "none")}
    items = field_value if isinstance(field_value, list) else [field_value]
    texts = (item if isinstance(item, str) else json.dumps(item, sort_keys=True, ensure_ascii=False) for item in items if item is not None)
    return {text for text in map(normalise, texts) if text}


def normalise(text: str) -> str:
    """`text` without the differences that carry no meaning: letter case, white space, dashes, Unicode compatibility forms."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(DASHES).casefold().split())


def stage_group(value: str) -> str:
    """The group of a normalised stage: "iii" for "iiia"; what is no stage stays as it is."""
    match = STAGE.fullmatch(value)
    return match[1] if match else value


def gene_symbol(value: str) -> str:
    """The gene of a normalised alteration: "egfr" for "egfr exon 19 deletion"."""
    return value.split()[0]
