"""The report as a reader meets it: on a phone and on a desk, by day and by night, in a real browser."""

import json
import shutil

import pytest

from tests.trainer.finished_run import METRICS, PREDICTIONS, finished, prediction
from trainer import report

pytestmark = pytest.mark.system
browser_package = pytest.importorskip("playwright.sync_api", reason="no browser driver: pip install playwright")


@pytest.fixture(scope="module")
def browser():
    place = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with browser_package.sync_playwright() as driver:
        try:
            made = driver.chromium.launch(executable_path=place, args=["--no-sandbox"])
        except browser_package.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield made
        made.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The fullest page there is: a merged model, many kinds of rows, a long answer without a space."""
    folder = finished(tmp_path_factory.mktemp("run"))
    kinds = {f"a_rather_long_phenomenon_{number}": {"rows": number, "macro_f1": 0.5, "row_exact": 0.25} for number in range(1, 25)}
    tuned = METRICS["tuned"] | {"slices": {"phenomenon": kinds}}
    forms = {"chosen": "nf4", "forms": {"nf4": METRICS["tuned"], "w16": METRICS["base"]}}
    (folder / "metrics.json").write_text(json.dumps(METRICS | {"tuned": tuned, "merged": forms}))
    rows = [*PREDICTIONS, prediction(4, "x" * 400, '{"cancer_type":"' + "y" * 200 + '"}', "z" * 400)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "report.html").write_text(report.render(folder))
    return folder / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_asks_nothing_and_can_be_read(browser, page_file, width, scheme, tmp_path):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(page_file.as_uri())
    page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    assert asked == [page_file.as_uri()] and complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert page.locator("svg").count() == 5
    for words in ("step", "loss (nats)", "GB", "tokens a second", "learning rate", "share"):
        label = page.locator("svg text", has_text=words).first
        box = label.bounding_box()
        assert box and min(box["width"], box["height"]) >= 6, f"the axis label `{words}` is too small to read"
    text, ground = (page.evaluate(f"getComputedStyle(document.body).{key}") for key in ("color", "backgroundColor"))
    assert contrast(text, ground) >= 7
    assert (brightness(ground) < 0.2) == (scheme == "dark")
    page.close()


def brightness(colour: str) -> float:
    """The relative luminance of a CSS colour, as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)
