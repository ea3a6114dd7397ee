"""The independent check of a row: its answer again, from nothing but the text and the recorded spans."""

from data import schema
from data.generator.case import SCALARS
from data.generator.spelling import means

DENIED = ("negated", "hedged", "pending")  # what a note may not say of a value that it also asserts
NEVER_GIVEN = ("planned", "declined", "family", "prior", "comorbidity")


def check_evidence(text: str, evidence: list[list], answer: dict) -> None:
    """Raise if the answer breaks the schema, if the spans give another one, or if the note contradicts itself."""
    if not schema.fits(answer, schema.schema()):
        raise ValueError(f"the answer breaks schema.json: {answer}")
    derived = derive(text, evidence)
    expected = {name: value if isinstance(value, list) else [value] if value else [] for name, value in answer.items()}
    if {name: sorted(values) for name, values in derived.items()} != {name: sorted(values) for name, values in expected.items()}:
        raise ValueError(f"the text says {derived}, the answer {expected}: {text}")
    denied = {(name, value) for name, value, status, *_ in evidence if status in DENIED + NEVER_GIVEN and name not in SCALARS}
    both = denied & {(name, value) for name, values in derived.items() for value in values}
    if both:
        raise ValueError(f"the text both asserts and denies {sorted(both)}: {text}")


def derive(text: str, evidence: list[list]) -> dict[str, list[str]]:
    """The asserted values of each field, each of them read off its span."""
    values: dict[str, list[str]] = {name: [] for name in schema.fields()}
    for name, value, status, start, end in evidence:
        if not means(name, value, text[start:end]):
            raise ValueError(f"{text[start:end]!r} is no spelling of {value!r} in: {text}")
        if status == "asserted" and value not in values[name]:
            values[name].append(value)
    return values
