"""Every figure of a model card is the record's, and the Hub can read them."""

import json
import re

import pytest
from huggingface_hub import ModelCard

from tests.unit.trainer.finished_run import COMMIT, METRICS, MODEL, PREDICTIONS, RUN_ID, finished, sealed, settings
from trainer.record import card


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("run"))


def test_the_hub_reads_the_same_numbers_as_metrics_json(folder):
    data = ModelCard(card.render(folder, "me/quick")).data
    keys = {"macro-F1 over fields": "macro_f1", "row exact match": "row_exact", "valid JSON": "json_valid", "stops by itself": "stopped"}
    figures = {result.metric_name: result.metric_value for result in data.eval_results}
    assert {key: figures[name] for name, key in keys.items()} == {key: METRICS["tuned"][key] for key in keys.values()}
    assert figures["loss per answer token (lower is better)"] == METRICS["completion_loss"]["tuned"]
    assert (data.base_model, data.base_model_relation, data.library_name, data.license) == (MODEL, "adapter", "peft", None)
    assert {result.dataset_split for result in data.eval_results} == {"validation"}
    assert data.model_name == "quick" and {"lora", "qlora"} <= set(data.tags)


def test_base_and_tuned_stand_side_by_side_with_intervals(folder):
    text = card.render(folder, "me/quick")
    assert "| macro-F1 over fields | 0.123 (0.111 to 0.136) | 0.765 (0.689 to 0.842) |" in text
    assert "| stage | 0.111 (0.089 to 0.117) | 0.689 (0.551 to 0.723) |" in text
    assert "step 16 of 16" in text and "32 held-out rows" in text


def test_what_the_record_lacks_is_reported_to_be_missing(tmp_path):
    folder = sealed(tmp_path, settings(), peak_memory=None, tokens=None)
    (folder / "metrics.json").write_text(json.dumps({**METRICS, "base": None, "completion_loss": None}))
    text = card.render(folder, "me/quick")
    assert "| macro-F1 over fields | not measured | 0.765 (0.689 to 0.842) |" in text
    for row in (
        "loss per answer token (lower is better) | not measured | not measured",
        "peak memory | not measured",
        "tokens seen | not measured",
    ):
        assert f"| {row} |" in text
    assert "| price | unknown |" in text and "| image | unknown |" in text
    assert "None" not in text


def test_a_free_text_task_says_its_own_metrics(tmp_path):
    folder = finished(tmp_path)
    side = {"kind": "text", "rows": 32, "exact": 0.25, "token_f1": 0.5, "stopped": 1.0, "intervals": {"exact": [0.1, 0.4]}}
    (folder / "metrics.json").write_text(json.dumps({**METRICS, "task": "text", "base": side, "tuned": side}))
    text = card.render(folder, "me/quick")
    assert "| exact match | 0.250 (0.100 to 0.400) |" in text and "macro-F1" not in text
    assert {result.metric_type for result in ModelCard(text).data.eval_results} == {"exact_match", "f1", "stopped", "completion_loss"}


@pytest.mark.parametrize(("policy", "told"), [("drop", True), ("refuse", False)])
def test_the_card_says_when_long_rows_were_left_out(tmp_path, policy, told):
    run = sealed(tmp_path, settings("data.max_length=256", f"data.too_long={policy}"))
    assert ("more than 256 tokens, where there are any, were left out of training and of scoring" in card.render(run, "me/quick")) == told


def test_the_snippet_is_python_and_pins_both_revisions(folder):
    (code,) = re.findall(r"```python\n(.*?)```", card.render(folder, "me/quick"), re.DOTALL)
    compile(code, "card", "exec")
    assert f'"me/quick", "{RUN_ID}"' in code and COMMIT in code
    assert "apply_chat_template" in code and "do_sample=False" in code and "eos_token_id" in code and "dtype = torch.float32" in code


def test_the_snippet_takes_off_what_the_template_writes_before_an_answer(tmp_path):
    folder = finished(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text()) | {"answers_behind": "</think>"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (code,) = re.findall(r"```python\n(.*?)```", card.render(folder, "me/quick"), re.DOTALL)
    compile(code, "card", "exec")
    assert "text.rpartition('</think>')[2]" in code and "skip_special_tokens" not in code


def test_the_card_shows_the_prompt_and_no_row_of_the_data(folder):
    text = card.render(folder, "me/quick")
    assert "{'role': 'user', 'content': 'Give the facts as JSON.\\n\\n...'}" in text
    assert not any(row["prompt"][0]["content"].split("\n\n")[1] in text for row in PREDICTIONS)


def test_of_several_wordings_the_card_shows_the_most_frequent(tmp_path):
    folder = finished(tmp_path)
    system = {"role": "system", "content": "You read notes."}
    wordings = ["Rare.\n\nNote A.", "Usual.\n\nIn JSON.\n\nNote B.", "Usual.\n\nIn JSON.\n\nNote C."]
    rows = [{**PREDICTIONS[0], "prompt": [system, {"role": "user", "content": wording}]} for wording in wordings]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = card.render(folder, "me/quick")
    assert "You read notes." in text and "'Usual.\\n\\nIn JSON.\\n\\n...'" in text and "Rare." not in text and "Note" not in text


def test_the_card_shows_nothing_of_a_single_scored_row(tmp_path):
    folder = finished(tmp_path)
    (folder / "predictions.jsonl").write_text(json.dumps(PREDICTIONS[0]) + "\n")
    assert "Give the facts" not in card.render(folder, "me/quick")


def test_the_card_names_neither_folders_nor_accounts(tmp_path):
    run = settings("data.train=/home/me/secret/notes.jsonl", "cloud.bucket=my-bucket")
    run.provenance.image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/trainer@sha256:abc"
    folder = sealed(tmp_path, run)
    text = card.render(folder, "me/quick")
    assert "`notes.jsonl`" in text and "trainer@sha256:abc" in text
    for private in ("/home", "secret", "my-bucket", "123456789012", "amazonaws"):
        assert private not in text


def test_a_fact_about_the_base_weights_is_repeated(tmp_path):
    assert "> **Base model:** Q4_1 dequantised" in card.render(sealed(tmp_path, settings("model.note=Q4_1 dequantised")), "me/quick")


def test_a_dataset_of_the_hub_is_linked(tmp_path):
    data = ModelCard(card.render(sealed(tmp_path, settings("data.train='hub:owner/notes:train'")), "me/quick")).data
    assert data.datasets == ["owner/notes"]


def test_a_run_whose_number_format_changed_says_so(tmp_path):
    folder = sealed(tmp_path, settings(), formats="the number format changed on the way (from step 1 in bf16; from step 5 in fp32)")
    assert "; the number format changed on the way (from step 1 in bf16; from step 5 in fp32) |" in card.render(folder, "me/quick")


def test_a_limit_of_answers_that_was_made_for_the_rows_is_in_the_code(tmp_path):
    """config.yaml holds none then: what was decided is in the manifest."""
    folder = sealed(tmp_path, settings("data.max_new_tokens=null"), max_new_tokens=104)
    text = card.render(folder, "me/receipts")
    assert "max_new_tokens=104," in text and "at most 104 new tokens" in text


def test_what_needs_no_model_is_on_the_card(tmp_path):
    folder = finished(tmp_path)
    made = {"macro_f1": 0.9, "row_exact": 0.5, "intervals": {"macro_f1": [0.88, 0.92]}}
    (folder / "metrics.json").write_text(json.dumps(METRICS | {"baselines": {"dictionary": made}}))
    text = card.render(folder, "me/receipts")
    assert (
        "Without a model, macro-F1 over fields on the same rows: a dictionary of the task, without reading 0.900 (0.880 to 0.920)." in text
    )
