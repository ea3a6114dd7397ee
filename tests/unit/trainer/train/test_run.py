"""A whole run on the tiny model: every file of the contract, the same bytes after a kill -9, the same answers in plain PEFT."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from markupsafe import escape
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoTokenizer, BitsAndBytesConfig, GenerationConfig

from conf import load, schema
from conf.problem import Problem
from conf.text.quoting import quoted
from data.rows import read
from tests.unit.trainer.conftest import ROOT, TRAIN, VALIDATION
from tests.unit.trainer.formats import computed_in, native
from trainer import __main__ as command
from trainer.evaluate import evaluate, predict
from trainer.files import digest, read_json_lines
from trainer.model import model
from trainer.model.distributed import ProcessGroup
from trainer.record import record

CONTRACT = ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/chat_template.jinja", "adapter/tokenizer.json"]
CONTRACT += [
    "adapter/tokenizer_config.json",
    "card.md",
    "config.yaml",
    "decided.json",
    "events.jsonl",
    "metrics.json",
    "predictions.jsonl",
    "report.html",
]


def make(settings: schema.Recipe, name: str):
    """A run folder that holds its configuration only, as the box finds it."""
    settings.run_id = name
    folder = Path(settings.runs) / settings.run_id
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(load.dump(settings))
    return folder


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return tmp_path_factory.mktemp("a volume")


@pytest.fixture(scope="module")
def run(settings_for, volume):
    """A finished run; NF4, as the shipped settings have it."""
    settings = settings_for(volume / "runs")
    folder = make(settings, "unbroken")
    command.train(settings, folder, ProcessGroup())
    return folder


@pytest.fixture(scope="module")
def run_natively(run, settings_for, volume):
    """The same run in the format that a process of its own takes on this CPU."""
    if native(torch.device("cpu"))[0] is torch.float32:
        return run
    settings = settings_for(volume / "runs")
    folder = make(settings, "natively")
    with computed_in("native"):
        command.train(settings, folder, ProcessGroup())
    return folder


def test_a_finished_run_holds_every_file_of_the_contract(run):
    manifest = record.verify(run)
    curves = [name for name in manifest["files"] if name.startswith("tensorboard/events.out.tfevents.")]
    assert len(curves) == 1
    assert sorted(set(manifest["files"]) - set(curves)) == CONTRACT
    assert (manifest["data"]["train_rows"], manifest["data"]["validation_rows"]) == (32, 16)
    assert set(manifest["seconds"]) == {"load", "train", "evaluate"}
    assert manifest["peak_memory"] > 50_000_000
    assert manifest["proof"]["packs"] and manifest["proof"]["told"] in (run / "card.md").read_text()
    assert str(escape(manifest["proof"]["told"])) in (run / "report.html").read_text()
    assert json.loads((run / "state.json").read_text())["phase"] == "evaluating"


def test_the_events_have_every_step_and_every_evaluation(run):
    events = read_json_lines(run / "events.jsonl")
    steps = [event for event in events if event["event"] == "step"]
    assert [event["step"] for event in steps] == [1, 2, 3, 4]
    assert all({"time", "steps", "epoch", "loss", "lr", "grad_norm", "tok_s", "mfu", "mem", "eta"} <= set(event) for event in steps)
    assert [event["step"] for event in events if event["event"] == "eval"] == [0, 2, 4]
    assert {event["what"] for event in events if event["event"] == "progress"} == {"loading model", "scoring base", "scoring tuned"}
    assert [event["phase"] for event in events if event["event"] == "phase"] == ["running", "evaluating"]


def test_the_metrics_are_of_the_exported_step_and_the_tuned_model_learned(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["task"] == "extraction" and metrics["rows"] == metrics["base"]["rows"] == metrics["tuned"]["rows"] == 4
    losses = {event["step"]: event["loss"] for event in read_json_lines(run / "events.jsonl") if event["event"] == "eval"}
    best = min((step for step in losses if step), key=losses.get)
    assert metrics["step"] == best
    assert metrics["completion_loss"] == pytest.approx({"base": losses[0], "tuned": losses[best]})
    assert losses[best] < losses[0]


def test_the_exported_weights_are_those_of_the_best_step(run):
    best = json.loads((run / "metrics.json").read_text())["step"]
    saved = load_file(run / f"checkpoints/step-{best:06d}/adapter.safetensors")
    exported = load_file(run / "adapter/adapter_model.safetensors")
    assert {name.replace(".default", ""): weight for name, weight in saved.items()}.keys() == exported.keys()
    assert all(torch.equal(weight, exported[name.replace(".default", "")]) for name, weight in saved.items())


def test_plain_peft_and_transformers_give_the_answers_that_were_scored(run, tiny):
    """None of our code between the saved files and the answers, one row at a time."""
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(run / "adapter")
    plain = AutoPeftModelForCausalLM.from_pretrained(run / "adapter", dtype=torch.float32, quantization_config=nf4, device_map="cpu").eval()
    for row in read_json_lines(run / "predictions.jsonl"):
        text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            output = plain.generate(
                **tokens, max_new_tokens=24, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
            )
        assert tokenizer.decode(output[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True) == row["tuned"]


def test_the_adapter_says_where_its_base_comes_from_and_at_which_commit(run, tiny, tuned, base, tmp_path):
    config = json.loads((run / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny) and config["revision"] is None, "a folder has no commit"
    model.save(tuned, replace(base, revision="1" * 40), schema.Model("owner/name", "main", "", False), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/name", "1" * 40)


def test_saving_an_adapter_asks_the_hub_nothing(tuned, base, tmp_path, monkeypatch):
    requests = []
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda *_words, **_options: requests.append(1))
    model.save(tuned, base, schema.Model("owner/name", "main", "", False), tmp_path)
    assert not requests and not any("embed" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    tuned.save_pretrained(tmp_path)
    assert requests, "PEFT's own default no longer asks: the test has lost its subject"


def test_a_gpu_without_bf16_of_its_own_computes_in_fp32_and_says_why(monkeypatch):
    for able, dtype, why in ((True, torch.bfloat16, "natively"), (False, torch.float32, "this GPU has no bf16 and fp16 overflows")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, able=able: able or including_emulation)
        precision, reason = native(torch.device("cuda"))
        assert precision is dtype and reason.endswith(why)


def test_prediction_uses_the_prompt_of_the_run_and_gives_its_answers(run):
    answerer = predict.Predictor(run)
    for row in read_json_lines(run / "predictions.jsonl"):
        question = answerer.row(json.dumps({"prompt": row["prompt"][-1]["content"]}), "line 1")
        assert question.messages == row["prompt"]
        assert answerer.predict(question)["output"] == row["tuned"]
    with pytest.raises(Problem, match="line 7 is no row that can be answered"):
        answerer.row("hello", "line 7")


def test_a_prompt_has_the_same_bytes_in_training_evaluation_prediction_and_on_the_card(run, template):
    rows = read(VALIDATION)[:4]
    trained = [template.example(row).prompt for row in rows]
    predicted = predict.Predictor(run).run.prompt
    scored = [predicted.tokens(row["prompt"]) for row in read_json_lines(run / "predictions.jsonl")]
    assert scored == trained
    tokenizer = AutoTokenizer.from_pretrained(run / "adapter")
    snippet = (run / "card.md").read_text().split("```python")[1].split("```")[0]
    rendering = snippet[snippet.index("messages = [") : snippet.index("inputs = tokenizer")]
    for row, tokens in zip(rows, trained, strict=True):
        place = {"tokenizer": tokenizer}
        exec(rendering.replace("messages = [", f"messages = {row.messages!r}; _ = [", 1), place)
        assert place["prompt"] == template.text(row.messages)
        assert tokenizer(place["prompt"], add_special_tokens=False)["input_ids"] == tokens


def test_an_input_alone_is_asked_as_training_asked_it_system_turn_and_all(settings_for, volume, tmp_path):
    def turns(number):
        question = f"Name the city.\n\nText {number}."
        pairs = [("system", "You are brief."), ("user", question), ("assistant", "Rome")]
        return {"id": f"r{number}", "messages": [{"role": role, "content": text} for role, text in pairs]}

    for name, numbers in (("train", range(8)), ("held_out", range(8, 12))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(turns(number)) + "\n" for number in numbers))
    files = [f"data.train={quoted(tmp_path / 'train.jsonl')}", f"data.validation={quoted(tmp_path / 'held_out.jsonl')}"]
    settings = settings_for(volume / "runs", *files, "data.fields=null", "quant=none", "train.steps=1")
    folder = make(settings, "with-a-system-turn")
    command.train(settings, folder)
    answerer = predict.Predictor(folder)
    trained = answerer.run.prompt.example(read(tmp_path / "train.jsonl")[3]).prompt
    for raw in ({"input": "Text 3."}, {"instruction": "Name the city.", "input": "Text 3."}, {"prompt": "Name the city.\n\nText 3."}):
        assert answerer.run.prompt.tokens(answerer.row(json.dumps(raw), "line 1").messages) == trained
    own = [{"role": "user", "content": "Hello."}]
    assert answerer.row(json.dumps({"messages": own}), "line 1").messages == own


def test_rows_that_were_left_out_or_never_reached_are_no_rows_that_were_trained_on(settings_for, template, volume):
    lengths = [sorted(len(template.example(row)) for row in read(path)) for path in (TRAIN, VALIDATION)]
    limit = max(each[len(each) // 2] for each in lengths)
    words = ["quant=none", "data.too_long=drop", f"data.max_length={limit}", "train.steps=1", "data.eval_rows=3"]
    settings = settings_for(volume / "runs", *words)
    folder = make(settings, "dropped")
    command.train(settings, folder)
    counts = record.verify(folder)["data"]
    fitting, held = (sum(length <= limit for length in each) for each in lengths)
    assert 8 < fitting < 32 and 3 < held < 16
    assert {name: count for name, count in counts.items() if "rows" in name} == {
        **{"train_rows": fitting, "train_rows_of": fitting, "train_rows_seen": 8, "train_rows_left_out": 32 - fitting},
        **{"validation_rows": held, "validation_rows_scored": 3, "validation_rows_left_out": 16 - held},
    }
    card = (folder / "card.md").read_text()
    assert f"on 8 of the {fitting} rows of `{TRAIN.name}`." in card
    assert f"{32 - fitting} of those to train on, {16 - held} of those held out" in card
    assert f"| training rows | 8 seen of {fitting} of" in card and f"| held-out rows | 3 scored of {held} of" in card
    page = (folder / "report.html").read_text()
    assert "tuned on 8 rows, scored greedily on 3 held-out rows" in page and f"{32 - fitting} longer ones left out" in page


def test_an_adapter_from_the_base_weights_chosen_by_its_answers_is_scored_as_it_is_shipped(settings_for, volume, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a key of an override cannot be quoted
    (tmp_path / "more.jsonl").write_text("".join(TRAIN.read_text().splitlines(True)[:4]).replace('"id": "', '"id": "more-'))
    words = [
        "quant=none",
        "lora.options.init_lora_weights=pissa",
        "train.metric_for_best_model=macro_f1",
        "data.also={more.jsonl: 2}",
    ]
    settings = settings_for(volume / "runs", *words)
    folder = make(settings, "uncommon")
    command.train(settings, folder)
    assert record.verify(folder)["data"]["also"].keys() == settings.data.also.keys()
    scores = {event["step"]: event["macro_f1"] for event in read_json_lines(folder / "events.jsonl") if event["event"] == "score"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert scores[metrics["step"]] == max(scores.values()) == metrics["tuned"]["macro_f1"]
    config = json.loads((folder / "adapter/adapter_config.json").read_text())
    assert config["init_lora_weights"] is True and config["r"] == 2 * settings.lora.r


def test_a_sealed_run_is_never_trained_again(run, settings_for, volume):
    before = record.verify(run)
    with pytest.raises(Problem, match="run unbroken is finished and sealed"):
        command.train(settings_for(volume / "runs"), run, ProcessGroup())
    assert record.verify(run) == before


def start(folder, **kwargs):
    words = [sys.executable, "-m", "trainer", "run", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_and_ends_with_the_bytes_of_the_unbroken_one(run_natively, settings_for, volume):
    folder = make(settings_for(volume / "runs"), "broken")
    process = start(folder)
    deadline = time.monotonic() + 900
    while not (folder / "checkpoints/step-000002/COMPLETE").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not record.sealed(folder)
    assert (folder / "checkpoints/step-000002").exists()

    again = start(folder)
    again.communicate(timeout=900)
    output = (folder / "log.txt").read_text()
    assert again.returncode == 0, output
    assert "going on after step 2 of 4" in output or "going on after step 4 of 4" in output
    assert "\r" not in output and "Traceback" not in output
    assert json.loads((folder / "state.json").read_text())["phase"] == "uploading"
    for name in ("adapter/adapter_model.safetensors", "predictions.jsonl"):
        assert digest(folder / name) == digest(run_natively / name)


def test_the_base_models_answers_are_generated_once(run, base, template, settings_for, volume, monkeypatch):
    """Keyed by what decides them, kept beside the runs; a local folder, which may change, is never trusted."""
    generated = []

    def generate(_model, _prompt, examples, _settings, _record, what, **_shared):
        generated.append(what)
        return [('{"stage": "II"}', True)] * len(examples)

    monkeypatch.setattr(evaluate, "generate", generate)
    settings = settings_for(volume / "runs")
    tuned = model.add_adapter(base, settings.lora, gradient_checkpointing=False)
    examples = [template.example(row) for row in read(VALIDATION)[:4]]
    for name, revision, expected in (("a", "1" * 40, True), ("b", "1" * 40, False), ("c", "2" * 40, True), ("d", None, True)):
        generated.clear()
        folder = volume / "runs" / name
        of_hub = replace(base, revision=revision)
        evaluate.compare(tuned, of_hub, template, examples, settings, "sha", folder, record.Record(folder))
        assert ("scoring base" in generated) is expected, name


class Hub(BaseHTTPRequestHandler):
    """Refuses as the Hub does: 403 for what is gated, 404 for what nobody may see."""

    def do_GET(self):
        gated = "gated" in self.path
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_words):
        pass


@pytest.mark.parametrize(
    ("owner", "what"), [("gated/model", "gated/model is gated"), ("no/model", "shows this token no repository no/model")]
)
def test_a_model_that_cannot_be_had_is_named(owner, what, monkeypatch, tmp_path):
    server = HTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Problem, match=what) as caught:
        model.fetch(schema.Model(owner, "main", "", False))
    server.shutdown()
    assert caught.value.reason == "model_unavailable" and owner in caught.value.hint


def test_targets_that_match_no_layer_are_a_problem_of_the_settings(base):
    with pytest.raises(Problem, match="matches no layer") as caught:
        model.add_adapter(base, schema.Lora(4, 8, 0.0, ["query"], {}), gradient_checkpointing=False)
    assert "q_proj" in caught.value.hint


def test_a_failed_run_says_why_in_its_state(settings_for, tmp_path):
    settings = settings_for(tmp_path / "runs", "data.max_length=50")
    folder = make(settings, "too-long")
    with pytest.raises(Problem, match="more than data.max_length=50"):
        command.train(settings, folder, ProcessGroup())
    state = json.loads((folder / "state.json").read_text())
    assert (state["phase"], state["reason"]) == ("failed", "bad_data")
    assert "data.max_length=50" in state["evidence"] and "data.too_long=drop" in state["hint"]


def test_generation_is_greedy_whatever_the_model_ships(base, template):
    base.model.generation_config = GenerationConfig(do_sample=True, temperature=9.0, repetition_penalty=3.0)
    model.use_greedy_decoding(base, template.stops)
    assert base.model.generation_config.do_sample is False
    assert base.model.generation_config.repetition_penalty in (None, 1.0)


@pytest.mark.slow
def test_settings_that_are_made_for_the_rows_are_decided_once_and_recorded(settings_for, tmp_path):
    """experiment=own: epochs by the number of rows, the limit of answers by the longest; here of ten rows of `data.train_rows`."""
    settings = settings_for(tmp_path / "runs", "train.steps=null", "train.epochs=null", "data.max_new_tokens=null", "data.train_rows=10")
    settings.train.max_hours = 1 / 3600 / 100  # the first step is enough
    folder = make(settings, "own")
    command.train(record.settings(folder), folder, ProcessGroup())
    manifest, metrics = record.manifest(folder), json.loads((folder / "metrics.json").read_text())
    limit = record.settings(folder).data.max_new_tokens
    assert limit == json.loads((folder / "decided.json").read_text())["max_new_tokens"] == manifest["max_new_tokens"] > 8
    assert f"max_new_tokens={limit}," in (folder / "card.md").read_text()
    assert (manifest["data"]["train_rows"], manifest["data"]["train_rows_of"], metrics["training"]["rows"]) == (10, 32, 10)
    assert next(event["steps"] for event in read_json_lines(folder / "events.jsonl") if event["event"] == "step") == 13, "ten epochs"
    assert set(metrics["baselines"]) == {"majority", "nearest", "dictionary"} and "Without a model" in (folder / "report.html").read_text()
