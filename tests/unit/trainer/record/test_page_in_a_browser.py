"""The report as a reader meets it: on a phone and on a desk, by day and by night, in a real browser."""

import json

import pytest

from tests.unit.trainer.finished_run import METRICS, PREDICTIONS, finished, prediction
from trainer.record import report

pytestmark = pytest.mark.system
# What is wider than the box it is in, scrolled or cut off.
TOO_WIDE = """[...document.querySelectorAll("body *")].filter(one => !one.closest("svg") && getComputedStyle(one).display != "inline"
  && one.clientWidth && one.scrollWidth > one.clientWidth + 1).map(one => one.outerHTML.slice(0, 200))"""


@pytest.fixture
def opened(browser):
    """Opens a page, so wide and in such light."""
    pages = []

    def opened(file, width, scheme="light"):
        pages.append(browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme))
        pages[-1].goto(file.as_uri())
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


def page_of(folder, metrics: dict, rows: list[dict], **facts):
    """The page of a run with these figures, rows and facts."""
    finished(folder)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "report.html").write_text(report.render(folder, json.loads((folder / "manifest.json").read_text()) | facts))
    return folder / "report.html"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The fullest page there is: a merged model, many kinds of rows, a long answer without a space."""
    kinds = {f"a_rather_long_phenomenon_{number}": {"rows": number, "macro_f1": 0.5, "row_exact": 0.25} for number in range(1, 25)}
    tuned = METRICS["tuned"] | {"slices": {"phenomenon": kinds}}
    forms = {"chosen": "nf4", "forms": {"nf4": METRICS["tuned"], "w16": METRICS["base"]}}
    rows = [*PREDICTIONS, prediction(4, "x" * 400, '{"cancer_type":"' + "y" * 200 + '"}', "z" * 400)]
    return page_of(tmp_path_factory.mktemp("full"), METRICS | {"tuned": tuned, "merged": forms}, rows)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_asks_nothing_and_can_be_read(browser, page_file, width, scheme, tmp_path):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(page_file.as_uri())
    page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    assert requests == [page_file.as_uri()] and complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert page.locator("svg").count() == 5
    for words in ("step", "loss (nats)", "GB", "tokens a second", "learning rate", "share"):
        label = page.locator("svg text", has_text=words).first
        box = label.bounding_box()
        assert box and min(box["width"], box["height"]) >= 9, f"the axis label `{words}` is too small to read"
    text, ground, page_ground = colours(page, ("body", "color"), (".card", "backgroundColor"), ("body", "backgroundColor"))
    assert contrast(text, page_ground) >= 7
    assert (brightness(page_ground) < 0.2) == (scheme == "dark")
    track, base, tuned = colours(page, *((f"{one}", "backgroundColor") for one in (".bar", ".bar.base i", ".bar.tuned i")))
    for bar in (base, tuned):  # WCAG 2 asks 3 of what is drawn, 4.5 of what is written
        assert min(contrast(bar, track), contrast(bar, ground)) >= 3
    quiet, mark, marked = colours(page, (".card h2", "color"), ("td.differs", "backgroundColor"), ("td.differs", "color"))
    assert min(contrast(quiet, ground), contrast(quiet, page_ground), contrast(marked, mark)) >= 4.5
    page.close()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_long_names_are_wrapped_and_no_value_is_out_of_sight(opened, tmp_path, width):
    name = "a_field_whose_name_is_so_long_that_no_phone_has_room_for_it"
    fields = {side: METRICS[side]["fields"] for side in ("base", "tuned")}
    sides = {side: METRICS[side] | {"fields": {name: scores["stage"], **scores}} for side, scores in fields.items()}
    rows = [row | {"id": "hub:somebody/rows-with-a-very-long-name/validation-00000-of-00001.parquet:" + "1" * 40} for row in PREDICTIONS]
    model = {"id": "averylongnameofanorganisation/" + "AModelWithAVeryLongName" * 3, "revision": "f" * 40}
    long = {"run_id": "20261122T010203Z-" + "long-" * 40 + "ab12", "name": "long" * 40, "kind": "smoke", "model": model}
    page = opened(page_of(tmp_path, METRICS | sides, rows, **long), width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert page.evaluate(TOO_WIDE) == []


def test_what_was_not_measured_is_named_in_whole_words_on_a_phone(opened, tmp_path):
    rows = [row | {"base": None} for row in PREDICTIONS]
    bare = METRICS | {"base": None, "difference": None, "completion_loss": {"base": None, "tuned": None}}
    page = opened(page_of(tmp_path, bare, rows), 320)
    cells = page.locator("td", has_text="not measured").all()
    assert len(cells) >= 8
    assert max(cell.bounding_box()["height"] for cell in cells) < 60, "more than its two words' two lines"


def test_an_interval_at_the_end_of_its_bar_stays_inside_the_card(opened, tmp_path):
    sure = METRICS["tuned"] | {"macro_f1": 1.0, "intervals": {"macro_f1": [1.0, 1.0]}}
    page = opened(page_of(tmp_path, METRICS | {"tuned": sure}, PREDICTIONS), 390)
    assert page.evaluate(TOO_WIDE) == []


def colours(page, *selectors: tuple[str, str]) -> list[str]:
    return [page.evaluate(f"getComputedStyle(document.querySelector('{one}')).{key}") for one, key in selectors]


def brightness(colour: str) -> float:
    """The relative luminance of a CSS colour, as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)
