"""The report is one page that asks nothing of a network and trusts nothing that it shows."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from tests.unit.trainer.finished_run import METRICS, PREDICTIONS, finished
from trainer import files
from trainer.record import curves, report


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text()


class Tags(HTMLParser):
    """Every tag of a page, with its attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag


def test_the_page_asks_nothing_of_a_network(page):
    for tag, attributes in Tags(page).tags:
        assert tag not in ("script", "link", "iframe", "img", "base"), tag
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "href", "xlink:href") or value.startswith("#"), (tag, name, value)
    assert not re.search(r"url\((?!['\"]?#)|@import", page)
    assert "http://" not in page.replace("http://www.w3.org/", "") and "https://" not in page


def test_what_rows_and_answers_hold_is_shown_as_text(page):
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "&lt;img src=x&gt;" in page and "&lt;b&gt;IV&lt;/b&gt;" in page
    assert "<script" not in page and "<img" not in page and "<b>IV" not in page


def test_the_headline_is_base_beside_tuned_with_intervals(page):
    assert "<span>0.123</span> → <b>0.765</b>" in page
    assert "0.765 <small>0.689 – 0.842</small>" in page
    assert 'style="left:68.9%;width:15.3%"' in page


def test_fields_that_differ_are_marked_and_only_those(page):
    marked = re.findall(r'<td class="differs">([^<]*)</td>', page)
    assert sorted(marked) == sorted(["skin", "II", "EGFR", "IIB", "&lt;b&gt;IV&lt;/b&gt;"])
    assert "base did not answer with one JSON object" in page


def test_a_field_s_bar_carries_its_interval(page):
    assert 'style="left:55.1%;width:17.2%"' in page, "the tuned model's F1 of stage, 0.551 to 0.723"


def test_slices_and_the_difference_are_shown_where_they_were_measured(page, tmp_path):
    assert "by phenomenon" in page and "negation <small>9 rows</small>" in page and "0.099 → <b>0.612</b>" in page
    assert "+0.640 <small>+0.580 to +0.700</small>" in page
    bare = {side: {key: value for key, value in METRICS[side].items() if key != "slices"} for side in ("base", "tuned")}
    folder = finished(tmp_path)
    (folder / "metrics.json").write_text(json.dumps({**METRICS, **bare, "difference": None}))
    text = report.render(folder)
    assert "Where it is strong" not in text and "<th>difference</th>" not in text


def test_a_length_that_all_rows_have_is_no_bar_and_two_of_them_are(tmp_path):
    folder, bands = finished(tmp_path), {"up to 50 words": {"rows": 9, "macro_f1": 0.6, "row_exact": 0.2}}
    for count, more in ((1, {}), (2, {"over 200 words": bands["up to 50 words"]})):
        sides = {side: METRICS[side] | {"slices": {"length": bands | more}} for side in ("base", "tuned")}
        (folder / "metrics.json").write_text(json.dumps({**METRICS, **sides}))
        assert ("by length" in report.render(folder)) == (count == 2)


def test_figures_that_no_row_can_give_are_left_out(page):
    assert "traps walked into" in page and "F1 of leaving a field empty" not in page


def test_the_spreadsheet_holds_every_figure_with_its_bounds():
    rows = {(row["kind"], row["name"]): row for row in report.table(METRICS)}
    assert rows["score", "macro_f1"]["tuned"] == METRICS["tuned"]["macro_f1"]
    assert rows["score", "macro_f1"]["tuned_low"] == METRICS["tuned"]["intervals"]["macro_f1"][0]
    assert rows["f1", "stage"]["base_high"] == METRICS["base"]["fields"]["stage"]["interval"][1]
    assert rows["phenomenon", "negation"]["rows"] == 9
    assert len({tuple(row) for row in rows.values()}) == 1, "every row has the same columns"


def test_curves_have_axes_and_follow_the_reader_s_colours(page):
    for label in ("loss (nats) by step", "share by step", "learning rate by step", "tokens a second by step", "GB by step"):
        assert f'aria-label="{label}"' in page
    assert ">held-out</text>" in page and ">step</text>" in page
    assert "DejaVu" not in page and page.count("font-family") == 0, "the page's own font"
    assert "var(--tuned)" in page and "#030303" not in page and "prefers-color-scheme: dark" in page


def test_steps_done_again_after_an_interruption_count_once(folder):
    events = files.read_json_lines(folder / "events.jsonl")
    undone = [{**event, "loss": 9.9} for event in events if event.get("step", 0) > 8]
    at = next(index for index, event in enumerate(events) if event.get("step", 0) > 8)
    assert curves.draw([*events[:at], *undone, *events[at:]]) == curves.draw(events)


@pytest.mark.parametrize("kept", [{1}, {8}, {16}])
def test_steps_are_whole_numbers_under_every_curve(folder, kept):
    """One step in all, or one measurement of many: no axis names the 7.6th step, and all of them show the same steps."""
    events = files.read_json_lines(folder / "events.jsonl")
    few = [event for event in events if event["event"] == "step" and event["step"] <= max(kept)]
    few += [{"event": "eval", "step": max(kept), "loss": 0.8, "token_match": 0.6, "field_match": 0.3}]
    axes = [re.findall(r"<text[^>]*>([^<]*)</text>", svg.partition('id="matplotlib.axis_2"')[0])[:-1] for _, svg in curves.draw(few)]
    assert len(axes) == 5 and all(axis == axes[0] for axis in axes)
    assert axes[0][0] == "0" and all(step.isdigit() for step in axes[0]) and int(axes[0][-1]) in (max(kept), max(kept) - 1)


def test_curves_are_distinguished_without_colours(folder):
    curve = dict(curves.draw(files.read_json_lines(folder / "events.jsonl")))["Loss per answer token"]
    lines = re.findall(r'<path [^>]*style="([^"]*stroke: var\(--(?:tuned|base)\)[^"]*stroke-width: 1.8[^"]*)"', curve)
    assert {("--base" in line, "stroke-dasharray" in line) for line in lines} == {(True, True), (False, False)}


def test_the_same_run_makes_the_same_page(folder, page, monkeypatch):
    monkeypatch.setattr(curves, "_plot", curves._plot.__wrapped__)  # drawn anew
    assert report.render(folder) == page


def test_a_run_without_steps_or_base_scores_has_a_report_too(tmp_path):
    folder = finished(tmp_path)
    (folder / "events.jsonl").unlink()
    (folder / "metrics.json").write_text(json.dumps({**METRICS, "base": None, "completion_loss": {"base": None, "tuned": None}}))
    (folder / "predictions.jsonl").write_text("".join(json.dumps({**row, "base": None}) + "\n" for row in PREDICTIONS))
    text = report.render(folder)
    assert "<svg" not in text and "not measured" in text


def test_free_text_answers_are_shown_side_by_side(tmp_path):
    folder = finished(tmp_path)
    side = {"kind": "text", "rows": 2, "exact": 0.5, "token_f1": 0.5, "stopped": 1.0, "intervals": {}}
    (folder / "metrics.json").write_text(json.dumps({**METRICS, "task": "text", "base": side, "tuned": side}))
    rows = [{"id": "1", "prompt": "Why?", "expected": "Because.", "base": "No <idea>", "tuned": "because."}]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = report.render(folder)
    assert '<pre class="differs">No &lt;idea&gt;</pre>' in text and '<pre class="">because.</pre>' in text
    assert "the only row; what differs" in text and "F1 of each field" not in text and "The merged model" not in text


def test_an_answer_of_nothing_is_called_so(tmp_path):
    folder = finished(tmp_path)
    silent = [PREDICTIONS[0] | {"base": "", "tuned": " \n"}, PREDICTIONS[1]]
    (folder / "predictions.jsonl").write_text("".join(files.json_line(row) for row in silent))
    text = report.render(folder)
    assert text.count('<pre class="differs"><em>nothing</em></pre>') == 2 and "all 2 rows; what differs" in text


def test_a_terminal_gets_base_and_tuned_as_plain_rows():
    rows = report.summary(METRICS)
    assert rows[0] == ("macro-F1 over fields", "0.123 (0.111 to 0.136)", "0.765 (0.689 to 0.842)", "better")
    assert ("valid JSON", "0.969 (0.900 to 1.000)", "0.969 (0.900 to 1.000)", "") in rows
    assert ("loss per answer token (lower is better)", "1.890", "0.300", "better") in rows
    assert ("F1 of stage", "0.111 (0.089 to 0.117)", "0.689 (0.551 to 0.723)", "better") in rows


def test_a_worse_figure_is_called_worse():
    rows = {row[0]: row[3] for row in report.summary({**METRICS, "base": METRICS["tuned"], "tuned": METRICS["base"]})}
    assert rows["macro-F1 over fields"] == "worse" and rows["wrong values, share of all given (lower is better)"] == "worse"


def test_the_laptop_imports_all_of_it_without_torch_or_matplotlib():
    code = (
        "import sys, trainer.record.record, trainer.record.report, trainer.record.card, trainer.hub.publish, trainer.preflight.preflight;"
    )
    code += "print([name for name in ('torch', 'matplotlib', 'transformers', 'datasets') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_row_is_right_where_the_scorer_says_so_whatever_else_it_holds(tmp_path):
    folder = finished(tmp_path)
    rows = [row | {"tuned": json.dumps(json.loads(row["expected"]) | {"gene_mutation": "EGFR"})} for row in PREDICTIONS]
    (folder / "predictions.jsonl").write_text("".join(files.json_line(row) for row in rows))
    two = {
        side: METRICS[side] | {"fields": {name: METRICS[side]["fields"][name] for name in ("cancer_type", "stage")}}
        for side in ("base", "tuned")
    }
    (folder / "metrics.json").write_text(json.dumps(METRICS | two))
    text = report.render(folder)
    assert "Right after tuning" in text and "Still wrong after tuning" not in text
    assert "<td>gene_mutation" not in text and "EGFR" not in text.split("Right after tuning")[1].split("</section>")[0]
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    assert "Right after tuning" not in report.render(folder)


def receipts(folder, answers, **metrics):
    """A run whose held-out rows have a date, a currency and items; `answers` are the tuned model's."""
    rows = [
        {
            "id": f"held_out.jsonl:{number}",
            "prompt": [{"role": "user", "content": "Café Luna, 6.40 EUR"}],
            "expected": json.dumps({"date": None, "currency": "SEK"}),
            "base": "no idea",
            "tuned": answer if isinstance(answer, str) else json.dumps(answer),
        }
        for number, answer in enumerate(answers, start=1)
    ]
    sides = {
        side: METRICS[side] | {"fields": dict.fromkeys(("date", "currency"), METRICS[side]["fields"]["stage"])}
        for side in ("base", "tuned")
    }
    (folder / "predictions.jsonl").write_text("".join(files.json_line(row) for row in rows))
    (folder / "metrics.json").write_text(json.dumps(METRICS | sides | metrics))
    return json.loads((folder / "metrics.json").read_text())


def test_misses_are_grouped_with_what_to_do(tmp_path):
    """First-use's two errors behind most misses: a date for every receipt without one, and another currency."""
    folder = finished(tmp_path)
    answers = [{"date": "2023-01-02", "currency": "CHF"}] * 4 + [{"date": None, "currency": "SEK"}] + ['{"date": null, "curr']
    metrics = receipts(folder, answers, training={"rows": 400, "empty": {"date": 120, "currency": 0}})
    lines = "\n".join(report.advice(folder, metrics))
    assert "9 misses in 5 of 6 rows; the first two kinds are 89% of them" in lines
    assert 'date: invented where it is empty, 4x; held_out.jsonl:1: "2023-01-02" in place of nothing' in lines
    assert "120 of 400 training rows leave it empty" in lines and "4 of 4 stand nowhere in the text" in lines
    assert '"SEK" was answered as "CHF" 4 times' in lines
    page = report.render(folder)
    assert "What is wrong, and what helps" in page and "<b>date</b>: invented where it is empty" in page
    assert "the whole answer</b>: cut off before its end" in page


def test_a_run_with_nothing_wrong_has_no_advice(tmp_path):
    folder = finished(tmp_path)
    metrics = receipts(folder, [{"date": None, "currency": "sek"}])
    assert report.advice(folder, metrics) == [] and "what helps" not in report.render(folder)


def test_what_needs_no_model_stands_beside_the_scores(tmp_path):
    folder = finished(tmp_path)
    made = {"macro_f1": 0.9, "row_exact": 0.5, "intervals": {"macro_f1": [0.88, 0.92], "row_exact": [0.4, 0.6]}}
    low = made | {"macro_f1": 0.75, "intervals": {"macro_f1": [0.7, 0.8]}}
    metrics = METRICS | {"baselines": {"majority": low, "dictionary": made | {"macro_f1": 0.9}}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    page = report.render(folder)
    assert "Without a model" in page and "A dictionary of the task, without reading is still better than the tuned model." in page
    assert "Whether the tuned model beats always the usual value these rows do not tell." in page
    assert (
        "without a model: a dictionary of the task, without reading 0.900 · always the usual value 0.750"
        in report.advice(folder, metrics)[0]
    )


def test_other_values_of_the_same_text_are_told_from_those_of_nowhere(tmp_path):
    folder = finished(tmp_path)
    same = receipts(folder, [{"date": None, "currency": "EUR"}])
    assert "it is another value of the same text: add rows with several to choose from" in "\n".join(report.advice(folder, same))
    other = receipts(folder, [{"date": None, "currency": name} for name in ("CHF", "USD", "GBP", "EUR")])
    assert "add rows like held_out.jsonl:1 and held_out.jsonl:2; 3 of 4 stand nowhere in the text" in "\n".join(
        report.advice(folder, other)
    )


def test_a_field_of_sentences_is_told_that_exact_match_is_no_measure_of_it_and_what_is(tmp_path):
    folder = finished(tmp_path)
    summaries = [f"The customer of shop {n} wants her money back for a lamp that broke" for n in range(5)]
    rows = [
        {
            "id": f"held_out.jsonl:{n}",
            "prompt": [{"role": "user", "content": "a mail"}],
            "expected": json.dumps({"summary": text, "order": n}),
            "base": "",
            "tuned": json.dumps({"summary": text.replace("wants her money back", "asks for a refund"), "order": n}),
        }
        for n, text in enumerate(summaries)
    ]
    both = {"fields": dict.fromkeys(("summary", "order"), METRICS["tuned"]["fields"]["stage"])}
    sides = {side: METRICS[side] | both for side in ("base", "tuned")}
    (folder / "predictions.jsonl").write_text("".join(files.json_line(row) for row in rows))
    told = "\n".join(report.advice(folder, METRICS | sides))
    assert "summary: sentences in other words, 5x" in told and "exact match is the wrong measure for sentences" in told
    assert "the words agree to 71% (token F1)" in told and "`'data.fields=[order]'` scores the other fields alone" in told
    assert "`data.fields=null`" in told and "summary: wrong value" not in told
