"""The independent check of a row: its answer again, from nothing but the text and the recorded spans."""

from data import schema
from data.generator.case import SCALARS
from data.generator.spelling import means

DENIED = ("negated", "hedged", "pending")  # what a note may not say of a value that it also asserts
NEVER_GIVEN = ("planned", "declined", "family", "prior")


def check(text: str, evidence: list[dict], answer: dict) -> None:
    """Raise if the answer breaks the schema, if the spans give another one, or if the note contradicts itself."""
    if not schema.fits(answer, schema.schema()):
        raise ValueError(f"the answer breaks schema.json: {answer}")
    found = derive(text, evidence)
    expected = {name: value if isinstance(value, list) else [value] if value else [] for name, value in answer.items()}
    if {name: sorted(values) for name, values in found.items()} != {name: sorted(values) for name, values in expected.items()}:
        raise ValueError(f"the text says {found}, the answer {expected}: {text}")
    denied = {(fact["field"], fact["value"]) for fact in evidence if fact["status"] in DENIED + NEVER_GIVEN}
    denied = {(name, value) for name, value in denied if name not in SCALARS}
    both = denied & {(name, value) for name, values in found.items() for value in values}
    if both:
        raise ValueError(f"the text both asserts and denies {sorted(both)}: {text}")


def derive(text: str, evidence: list[dict]) -> dict[str, list[str]]:
    """The asserted values of each field, each of them read off its span."""
    found: dict[str, list[str]] = {name: [] for name in schema.fields()}
    for fact in evidence:
        surface = text[fact["start"] : fact["end"]]
        if not means(fact["field"], fact["value"], surface):
            raise ValueError(f"{surface!r} is no spelling of {fact['value']!r} in: {text}")
        if fact["status"] == "asserted" and fact["value"] not in found[fact["field"]]:
            found[fact["field"]].append(fact["value"])
    return found
