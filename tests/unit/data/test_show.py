"""`inv data.show` and `inv data.stats`: what a reader of rows sees."""

import io

import pytest
from rich.console import Console

from data import show, stats
from data.rows import normalise

FIELDS = ["treatment", "site"]


@pytest.fixture
def row():
    raw = {
        "id": "r-1",
        "instruction": "Give the facts.",
        "input": "On osimertinib; no liver [lesion].",
        "output": {"treatment": ["osimertinib"], "site": []},
        "meta": {
            "style": "letter",
            "phenomena": ["negated"],
            "evidence": [
                {"field": "treatment", "value": "osimertinib", "status": "asserted", "start": 3, "end": 14},
                {"field": "site", "value": "liver", "status": "negated", "start": 19, "end": 24},
            ],
        },
    }
    return normalise(raw, "f:1")


def printed(row, **options):
    out = io.StringIO()
    Console(file=out, width=100, highlight=False, **options).print(show.page(row, FIELDS))
    return out.getvalue()


def test_a_label_has_its_fields_colour_and_a_distractor_is_crossed_out(row):
    text = show.marked(row, {"treatment": "cyan", "site": "magenta"})
    styles = {row.text[span.start : span.end]: str(span.style) for span in text.spans}
    assert styles == {"osimertinib": "bold cyan", "liver": "dim strike magenta"}
    page = printed(row, force_terminal=True, color_system="standard")
    assert "\x1b[1;36mosimertinib\x1b[0m" in page and "\x1b[2;9;35mliver\x1b[0m" in page


def test_off_the_terminal_the_page_is_plain_and_still_shows_what_is_no_label(row):
    page = printed(row)
    assert "\x1b" not in page
    assert '"liver" negated' in page and "r-1 · letter" in page and "Give the facts." in page and "[lesion]" in page
    assert "phenomena         negated" in page


def test_no_color_takes_the_colours_away(row, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "36m" not in printed(row, force_terminal=True, color_system="standard")


@pytest.mark.parametrize(
    "raw", [{"prompt": "Why?", "completion": "Because."}, {"prompt": "p", "completion": "{}", "meta": {"evidence": "p. 3"}}]
)
def test_rows_without_a_record_are_shown_too(raw):
    assert raw["prompt"] in printed(normalise(raw, "f:1"))


def test_the_same_seed_shows_the_same_rows(capsys):
    rows = [normalise({"prompt": f"question {number}", "completion": "a"}, f"f:{number}") for number in range(50)]
    pages = []
    for seed in ("3", "3", "4"):
        show.show(rows, None, 2, seed)
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1] != pages[2]
    assert pages[0].count("question") == 2


def test_stats_show_what_sets_are_made_of(row):
    other = normalise({"instruction": "Give facts.", "input": "None.", "output": {"treatment": [], "site": ["bone"]}}, "f:2")
    lines = {line[0]: line[1:] for line in stats.table({"train": [row, other], "validation": [other]}, FIELDS)}
    assert lines["rows"] == ["2", "1"]
    assert lines["instructions"] == ["2", "1"]
    assert lines["words of a text (least / median / most)"] == ["1 / 5 / 5", "1 / 1 / 1"]
    assert lines["treatment: empty"] == ["50.0%", "100.0%"]
    assert lines["site: most frequent"] == ["50.0%", "100.0%"]
    assert lines["style: letter"] == lines["phenomenon: negated"] == ["50.0%", "0.0%"]
    assert len({len(line) for line in stats.text(stats.table({"train": [row]}, FIELDS)).splitlines()}) == 1
