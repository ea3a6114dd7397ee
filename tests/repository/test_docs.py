"""The pages that a reader meets first stay short, and what they name is there."""

import re

import pytest
from conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DECISIONS = sorted((ROOT / "docs/decisions").glob("*.md"))
PLACE = re.compile(r"`((?:\w+/)+[\w.-]+\.\w+|(?:\w+/)+)`")
HISTORY = ("CHANGELOG.md",)  # names what was there then
MADE = re.compile(
    r"conf/(data/mine|local)\.yaml|stack/.*|runs/.*|checkpoints/.*|twin/aws/documented/recorded/?|log/|part/|evaluations/.*|inputs/.*|lives/|boxes/.*"
)


@pytest.mark.parametrize(("page", "lines", "words"), [("ARCHITECTURE.md", 120, 1500)])
def test_a_page_can_be_read_in_minutes(page, lines, words):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= lines and len(text.split()) <= words


def test_the_decisions_are_few_numbered_and_say_what_they_cost():
    assert 1 <= len(DECISIONS) <= 30
    for number, file in enumerate(DECISIONS, 1):
        text = file.read_text(encoding="utf-8")
        assert file.name.startswith(f"{number:03}-") and text.startswith(f"# {number:03}. "), file.name
        assert [part for part in ("**Context.**", "**Decision.**", "**What it costs.**") if part not in text] == [], file.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page):
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in HISTORY], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_is_there(page):
    named = set(PLACE.findall(page.read_text(encoding="utf-8")))
    assert sorted(name for name in named if not MADE.fullmatch(name) and not (ROOT / name).exists()) == []
