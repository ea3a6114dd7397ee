"""A finished run is scored again as it was scored at first: same weights, same quantisation, same prompt, same scorer."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from conf import schema
from conf.problem import Problem
from data.rows import read
from tests.unit.trainer.conftest import ROOT, VALIDATION
from trainer.evaluate import evaluate, evaluate_run, finished_run, predict
from trainer.files import digest, read_json_lines
from trainer.model import model
from trainer.record import record

FORMAT = "native"  # some of the examiners are processes of their own


@pytest.mark.slow
def test_the_rows_of_the_run_give_the_scores_of_the_run(trained, tmp_path):
    rows = tmp_path / "again.jsonl"
    rows.write_text("".join(VALIDATION.read_text().splitlines(keepends=True)[:4]))
    before = digest(trained / "manifest.json")
    words = [sys.executable, "-m", "trainer.evaluate.evaluate_run", str(trained), str(rows), str(tmp_path / "out" / "again")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scores, metrics = json.loads((tmp_path / "out/again.json").read_text()), json.loads((trained / "metrics.json").read_text())
    for side in ("base", "tuned"):
        assert scores[side] == metrics[side]
    assert scores["completion_loss"] == pytest.approx(metrics["completion_loss"], rel=1e-5)
    assert (scores["rows_sha256"], scores["trained_on"], scores["split"]) == (digest(rows), False, "again")
    assert scores["adapter_sha256"] == record.manifest(trained)["files"]["adapter/adapter_model.safetensors"]["sha256"]
    for key in ("base", "tuned"):
        assert [row[key] for row in read_json_lines(tmp_path / "out/again.predictions.jsonl")] == [
            row[key] for row in read_json_lines(trained / "predictions.jsonl")
        ]
    assert digest(trained / "manifest.json") == before and record.verify(trained), "a sealed run was written"


@pytest.mark.slow
def test_rows_that_were_trained_on_are_called_that(trained, tmp_path):
    scores, _ = evaluate_run.evaluate_rows(trained, ROOT / "data/smoke_train.jsonl", "smoke_train")
    assert scores["trained_on"] is True and scores["rows"] == 32


def test_the_quantisation_is_that_of_training_and_the_shipped_adapter_is_what_answers(trained):
    run = finished_run.load(trained)
    kinds = {type(module).__name__ for module in run.tuned.modules()}
    assert "Linear4bit" in kinds, "scored in another form than trained"
    exported = finished_run.load(trained).tuned.state_dict()
    assert all(torch.equal(value, exported[name]) for name, value in run.tuned.state_dict().items() if "lora" in name)


@pytest.mark.slow
def test_prediction_prints_one_answer_for_each_line_and_nothing_else(trained):
    predictions = read_json_lines(trained / "predictions.jsonl")[:2]
    input_lines = "".join(json.dumps({"prompt": row["prompt"][-1]["content"]}) + "\n" for row in predictions)
    done = subprocess.run(
        [sys.executable, "-m", "trainer.evaluate.predict", str(trained)], cwd=ROOT, input=input_lines, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["output"] for line in done.stdout.split("\n")[:-1]] == [row["tuned"] for row in predictions]


def test_a_model_that_does_not_fit_is_one_sentence_before_anything_is_loaded(trained, monkeypatch):
    monkeypatch.setattr(finished_run.model, "free_memory", lambda: 1000)
    monkeypatch.setattr(finished_run.model, "load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(Problem, match=r"needs about 0.0 GB of memory here, and 0.0 GB are free") as caught:
        finished_run.load(trained)
    assert caught.value.reason == "out_of_memory"


def test_free_memory_is_what_the_system_says():
    free = model.free_memory()
    assert free is None or 10_000_000 < free < 10**13


def test_what_is_scored_are_the_exported_files_and_nothing_else(tuned, base, tmp_path):
    """The weights in memory may have moved on since the export; the scores must be of the files."""
    model.save(tuned, base, schema.Model("owner/name", "main", "", False), tmp_path)
    exported = {name: weight.detach().clone() for name, weight in tuned.named_parameters() if weight.requires_grad}
    with torch.no_grad():
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight.add_(1.0)
    evaluate.reload_adapter(tuned, tmp_path)
    assert all(torch.equal(weight, exported[name]) for name, weight in tuned.named_parameters() if weight.requires_grad)


def test_an_export_that_lacks_a_weight_is_refused(tuned, base, tmp_path):
    from safetensors.torch import load_file, save_file

    model.save(tuned, base, schema.Model("owner/name", "main", "", False), tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, tmp_path / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(Problem, match=rf"holds {len(weights)} weights, 0 of them unknown; {len(weights) + 1} were learned"):
        evaluate.reload_adapter(tuned, tmp_path)


def test_broken_rows_stop_with_their_line(trained, tmp_path):
    rows = tmp_path / "broken.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    with pytest.raises(Problem, match="broken.jsonl:2"):
        evaluate_run.evaluate_rows(trained, rows, "broken")


def test_a_row_past_what_the_model_reads_is_refused_and_not_answered(trained, monkeypatch):
    answerer = predict.Predictor(trained)
    answerer.run.config["max_position_embeddings"] = 20
    with pytest.raises(Problem, match=r"row line 1 has \d+ tokens, and the model reads at most 20") as caught:
        answerer.predict(answerer.row(json.dumps({"prompt": "a b " * 20}), "line 1"))
    assert "shorten the text" in caught.value.hint
    monkeypatch.setattr(finished_run, "load", lambda _: answerer.run)
    with pytest.raises(Problem, match=r"has \d+ tokens, and the model reads at most 20"):
        evaluate_run.evaluate_rows(trained, VALIDATION, "long")


def test_no_hint_names_a_setting_where_a_finished_run_answers(trained, tmp_path, monkeypatch, capsys):
    """`data.max_length=` and `data.fields=null` are words for `inv train`: here they are taken by nothing."""
    run = finished_run.load(trained)
    monkeypatch.setattr(finished_run, "load", lambda _: run)
    rows = tmp_path / "text.jsonl"
    rows.write_text('{"prompt": "a", "completion": "no object"}\n')
    for source, length, what in ((VALIDATION, 30, "more than data.max_length=30"), (rows, 1024, "text.jsonl:1")):
        run.settings.data.max_length = length
        monkeypatch.setattr("sys.argv", ["evaluate_run", str(trained), str(source), str(tmp_path / "out")])
        with pytest.raises(SystemExit):
            evaluate_run.main()
        error, hint = capsys.readouterr().err.split("hint: ")
        assert what in error and "correct such rows or leave them out" in hint and "=" not in hint


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(28, "No space left on device"),
        RuntimeError("CUDA out of memory"),
        RuntimeError("what"),
        Problem("it cannot", "choose: `model.id=owner/name`"),
    ],
)
def test_what_stops_an_answer_has_a_hint_without_settings(error):
    assert not finished_run.SETTING.search(finished_run.explain(error).hint)
    assert "log.txt" not in finished_run.explain(error).hint
    plain = Problem("the Hub did not answer", "check the network", "unreachable")
    assert finished_run.explain(plain) is plain


def test_what_would_stretch_a_models_positions_is_refused_where_it_answers(trained):
    """transformers keeps them stretched for the next answers, which then are not what they are alone."""
    answerer = predict.Predictor(trained)
    short = answerer.row(json.dumps({"prompt": "a"}), "line 1")
    answer = answerer.predict(short)
    trained_on = len(answerer.run.prompt.tokens(short.messages, short.tools)) + answerer.run.settings.data.max_new_tokens
    answerer.run.config.update(rope_parameters={"rope_type": "dynamic", "factor": 4.0}, max_position_embeddings=trained_on)
    assert answerer.predict(short) == answer
    with pytest.raises(Problem, match=f"past {trained_on} this model stretches positions by the longest row before"):
        answerer.predict(answerer.row(json.dumps({"prompt": "a b c d"}), "line 2"))


def test_a_folder_without_a_manifest_is_no_finished_run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    (tmp_path / "copy/manifest.json").unlink()
    with pytest.raises(Problem, match="holds no finished run"):
        evaluate_run.evaluate_rows(tmp_path / "copy", VALIDATION, "x")


def test_a_model_that_is_not_the_one_of_the_manifest_is_not_loaded(trained, tmp_path, monkeypatch):
    """What came from the bucket, or lay on the volume, was loaded unseen: altered weights were scored under the run's name."""
    monkeypatch.setattr(finished_run.model, "load", lambda *_: pytest.fail("the base was loaded"))
    for name in (
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
        "adapter/tokenizer.json",
        "config.yaml",
        "metrics.json",
    ):
        shutil.copytree(trained, tmp_path / "copy")
        with (tmp_path / "copy" / name).open("r+b") as file:
            file.write(b"{")
            file.truncate((trained / name).stat().st_size)
            file.seek(1)
            file.write(b"#")
        with pytest.raises(Problem, match=f"is damaged: {name} has another sha256 than its record\n\nhint: remove {tmp_path}"):
            evaluate_run.evaluate_rows(tmp_path / "copy", VALIDATION, "x")
        shutil.rmtree(tmp_path / "copy")
    shutil.copytree(trained, tmp_path / "copy")
    (tmp_path / "copy/adapter/added_tokens.json").write_text("{}")
    with pytest.raises(Problem, match=r"adapter/added_tokens.json is not in its record"):
        evaluate_run.evaluate_rows(tmp_path / "copy", VALIDATION, "x")


def test_both_sides_answer_every_row_with_the_prompt_of_training(trained):
    run = finished_run.load(trained)
    for row, prediction in zip(read(VALIDATION)[:4], read_json_lines(trained / "predictions.jsonl"), strict=True):
        assert prediction["prompt"] == row.messages
        assert run.prompt.example(row).prompt == run.prompt.tokens(prediction["prompt"])
