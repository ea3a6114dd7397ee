"""The words the generator's stages share: a fact, a statement of facts, and the patient they are about."""

from dataclasses import dataclass, field, replace

from data.generator.knowledge import Cancer


@dataclass(frozen=True)
class Fact:
    """A value of a field of the answer. Only `asserted` ones are labels."""

    field: str
    value: str
    status: str = "asserted"  # or superseded, negated, hedged, pending, planned, declined, family, prior, expected


@dataclass(frozen=True)
class Statement:
    """One sentence to be: its kind (a file of frames/), the facts for its slots, and plain words for other slots."""

    kind: str
    facts: dict[str, tuple[Fact, ...]] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Patient:
    """What holds for the patient now, by value."""

    sex: str
    age: int
    cancer: Cancer | None = None  # None: the work-up found no cancer
    stage: str | None = None
    genes: list[str] = field(default_factory=list)
    markers: list[str] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    lines: list[list[str]] = field(default_factory=list)
    unusual: bool = False  # holds something that this cancer seldom has

    def with_lines(self, lines: list[list[str]]) -> "Patient":
        return replace(self, lines=lines)

    def options(self) -> list[list[str]]:
        """The lines of drugs that make sense: the cancer's own, and, twice as often, those its findings call for."""
        targeted = [line for finding in self.genes + self.markers for line in self.cancer.targeted.get(finding, [])]
        return self.cancer.systemic + targeted * 2

    def received(self) -> set[str]:
        return {item for line in self.lines for item in line}


def facts(name: str, values: list[str], status: str = "asserted") -> tuple[Fact, ...]:
    """A fact of the field `name` for each value."""
    return tuple(Fact(name, value, status) for value in values)
