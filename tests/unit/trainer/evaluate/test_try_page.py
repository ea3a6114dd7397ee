"""The page of `inv serve` in a real browser: both models answer, what the text does not hold is marked, on a phone and by night."""

import threading
from types import SimpleNamespace

import pytest
from werkzeug.serving import make_server

from trainer.evaluate import serve
from trainer.files import json_line

pytestmark = pytest.mark.system
NOTE = "A 61-year-old woman with Stage  II breast cancer."
ANSWERS = {
    "tuned": '{"cancer_type":"Breast","stage":"stage ii","gene":[],"age":61,"drugs":[{"name":"<b>EGFR</b>"}],"smoker":true}',
    "base": "It is <img src=x onerror=alert(1)> breast cancer.",
}


class Predictor:
    """Stands for a model: it answers at once, and as the test wants."""

    instruction = "Give the facts as JSON."
    run = SimpleNamespace(settings=SimpleNamespace(model=SimpleNamespace(id="owner/<i>model</i>")))

    def row(self, line: str, where: str) -> str:
        return line

    def predict(self, row: str, base: bool, limit: int | None, own: object) -> dict:
        return {"output": ANSWERS["base" if base else "tuned"], "stopped": not base}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    rows = [
        {"prompt": [{"role": "user", "content": f"Give the facts as JSON.\n\n{text}"}], "expected": '{"a":1}'}
        for text in (NOTE, "</script>")
    ]
    (folder / "predictions.jsonl").write_text("".join(map(json_line, rows)))
    server = make_server(serve.HOST, 0, serve.ChatApi(Predictor(), folder), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{serve.HOST}:{server.port}/"
    server.shutdown()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_both_models_answer_and_what_the_text_does_not_hold_is_marked(browser, address, width, scheme, tmp_path):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    assert page.locator("#note").input_value() == NOTE and page.locator("#expected").inner_text() == 'expected: {"a":1}'
    page.locator("#ask").click()
    page.wait_for_selector("#ask:not([disabled])")
    cells = [line.split("\t") for line in page.locator("#tuned table").inner_text().splitlines()]
    assert cells == [
        *(["cancer_type", "Breast"], ["stage", "stage ii"], ["gene", "–"], ["age", "61"]),
        *(["drugs.0.name", "<b>EGFR</b>"], ["smoker", "true"]),
    ]
    assert page.locator("td.absent").all_inner_texts() == ["<b>EGFR</b>"]
    assert page.locator("#base pre").inner_text() == ANSWERS["base"]
    assert "cut off" in page.locator("#base .state").inner_text() and "cut off" not in page.locator("#tuned .state").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    page.locator("#next").click()
    assert page.locator("#note").input_value() == "</script>"
    page.locator("#note").fill("Nothing is known.")
    page.keyboard.press("Control+Enter")
    page.locator("td.absent").nth(3).wait_for()
    assert complaints == [] and {url.startswith(address) for url in asked} == {True}
    page.close()


def test_a_server_that_has_ended_is_a_sentence(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.route("**/v1/**", lambda route: route.abort())
    page.locator("#ask").click()
    page.wait_for_selector("#ask:not([disabled])")
    assert page.locator("#tuned .state").inner_text() == "the server does not answer any more"
    page.close()
