"""What a note has not said yet: sites, drugs, tests and relatives that a further statement can be about without contradiction."""

from data.generator.draw import Draw
from data.generator.knowledge import Cancer, cancers, marker_name, tables
from data.generator.patient import shared_genes
from data.generator.statement import Patient

RELATIVES = {
    "mother": "woman",
    "sister": "woman",
    "maternal aunt": "woman",
    "paternal grandmother": "woman",
    "daughter": "woman",
    "father": "man",
    "brother": "man",
    "paternal uncle": "man",
    "maternal grandfather": "man",
    "son": "man",
}


class Unused:
    """Hands out each thing once."""

    def __init__(self, patient: Patient, entities: str):
        cancer = patient.cancer
        self.patient, self.entities = patient, entities
        self.relatives = list(RELATIVES)
        known = {gene.split()[0] for gene in patient.genes} | {marker_name(value) for value in patient.markers}
        self._known = known
        self._sites = [site for site in (cancer.sites if cancer else []) if site not in patient.sites]
        self._sites += [site for site in ("liver", "lung", "bone", "brain") if cancer and _may_spread(site, cancer.name)]
        self._sites = [site for site in dict.fromkeys(self._sites) if site not in patient.sites]
        self._tests = [test for test in (cancer.tests if cancer else []) if test not in known]
        genes = [*cancer.genes, *shared_genes(entities)] if cancer else []
        self._genes = [gene for gene in dict.fromkeys(genes) if gene.split()[0] not in known]
        self._given = patient.received()
        known = cancers(entities)
        self._earlier = [name for name in tables()["curable"] if name in known and patient.sex in known[name].sexes]
        self._earlier = [name for name in self._earlier if not cancer or name != cancer.name]

    def sites(self, count: int, draw: Draw, among: tuple[str, ...] = ()) -> list[str]:
        sites = draw.some([site for site in self._sites if not among or site in among], count)
        self._sites = [site for site in self._sites if site not in sites]
        return sites

    def tests(self, count: int, draw: Draw) -> list[str]:
        tests = draw.some(self._tests, count)
        self._tests = [test for test in self._tests if test not in tests]
        self._genes = [gene for gene in self._genes if gene.split()[0] not in tests]
        return tests

    def genes(self, count: int, draw: Draw) -> list[str]:
        """Alterations of genes that the note says nothing else about."""
        genes: dict[str, str] = {}
        for gene in draw.some(self._genes, len(self._genes)):
            if len(genes) < count:
                genes.setdefault(gene.split()[0], gene)
        self._genes = [gene for gene in self._genes if gene.split()[0] not in genes]
        self._tests = [test for test in self._tests if test not in genes]
        return list(genes.values())

    def line(self, draw: Draw) -> list[str]:
        """A line of drugs that makes sense here and was not given."""
        lines = [line for line in self.patient.options() if not set(line) & self._given]
        chosen = draw.one(lines) if lines else []
        self._given |= set(chosen)
        return chosen

    def treatments(self, options: list[str], count: int, draw: Draw) -> list[str]:
        """Some of `options` that nothing was said about: the patient's own treatments must not be someone else's, too."""
        treatments = draw.some([item for item in options if item not in self._given], count)
        self._given |= set(treatments)
        return treatments

    def relative(self, draw: Draw) -> str:
        return self.relatives.pop(draw.below(len(self.relatives)))

    def has_earlier(self) -> bool:
        """Whether the patient can have been cured of another cancer: most are too rare before middle age."""
        return self.patient.age >= 38 and bool(self._earlier)

    def earlier(self, draw: Draw) -> Cancer:
        """Another cancer that the patient may have been cured of, handed out once."""
        return cancers(self.entities)[self._earlier.pop(draw.below(len(self._earlier)))]

    def confused(self, draw: Draw) -> Cancer:
        """Another cancer that the patient's could be taken for: one of those treated most alike."""
        mine = _drugs(self.patient.cancer)
        options = [other for other in cancers(self.entities).values() if self.patient.sex in other.sexes and other != self.patient.cancer]
        return draw.one(sorted(options, key=lambda other: -len(mine & _drugs(other)))[:6])

    def cancer(self, sex: str, draw: Draw) -> Cancer:
        """Another cancer that someone of `sex` can have."""
        mine = self.patient.cancer
        options = [other for other in cancers(self.entities).values() if sex in other.sexes and (not mine or other.name != mine.name)]
        return draw.one(options)

    def marker(self, draw: Draw) -> str | None:
        """The name of a tissue marker that was not measured."""
        panels = [marker_name(value) for panel in self.patient.cancer.panels for value in panel]
        mine = list(dict.fromkeys(self.patient.cancer.markers + panels))
        names = [name for name in mine if name not in self._known and not tables()["marker"][name].get("blood")]
        chosen = draw.some(names, 1)
        self._known |= set(chosen)
        return chosen[0] if chosen else None


def _drugs(cancer: Cancer) -> set[str]:
    return {item for line in [*cancer.systemic, cancer.local] for item in line}


def _may_spread(site: str, name: str) -> bool:
    """False where `site` is the organ that the cancer comes from."""
    organ = {"liver": ("hepato", "cholangio", "liver"), "lung": ("lung", "mesothelioma"), "bone": ("osteo", "sarcoma", "myeloma")}
    organ["brain"] = ("gli", "astro", "brain")
    return not any(word in name for word in organ[site])
