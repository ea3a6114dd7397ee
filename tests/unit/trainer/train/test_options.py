"""Every option changes what it says it changes, and what a library would refuse is refused in one sentence."""

import re
import time
from dataclasses import fields, replace

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig

from conf import schema
from conf.problem import Problem
from data.rows import read
from tests.unit.trainer.conftest import TRAIN
from tests.unit.trainer.formats import tolerance
from trainer.files import read_json_lines
from trainer.model import attention, lora_options, model
from trainer.model.distributed import ProcessGroup
from trainer.model.packing import packs
from trainer.record import trackers
from trainer.record.record import Record
from trainer.rows import prompt
from trainer.rows.sampler import Sampler, WeightedRows
from trainer.train import checkpoint, loop, optimizer

SMALL = ["quant=none", "train.steps=4", "train.batch_size=2", "train.eval_steps=9", "train.report_to=[]"]


@pytest.fixture(scope="module")
def trained(settings_for, base_for, tmp_path_factory):
    """Trains the tiny model with these settings: the model, the progress, the record's folder."""

    def make(*words: str, judge=None):
        folder = tmp_path_factory.mktemp("run")
        settings = settings_for(folder, *SMALL, *words)
        torch.manual_seed(settings.seed)
        base = base_for()
        tuned = model.add_adapter(base, settings.lora, settings.train.gradient_checkpointing == "yes")
        rows = prompt.Prompt(base.tokenizer, base.stops).examples(read(TRAIN)[:6], settings.data)
        order = Sampler([WeightedRows(rows[:4])], settings.seed, settings.train.batch_size)
        store = checkpoint.CheckpointStore(folder / "checkpoints", "x", settings.train.save_total_limit)
        return tuned, loop.train(tuned, order, rows[4:], settings, store, Record(folder), ProcessGroup(), judge), folder

    return make


def adapter(tuned):
    return {name: weight.detach().clone() for name, weight in tuned.named_parameters() if weight.requires_grad}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(weight, other[name]) for name, weight in one.items())


@pytest.fixture(scope="module")
def plain(trained):
    return adapter(trained()[0])


@pytest.mark.parametrize(
    "words",
    [
        ["lora.r=4"],
        ["lora.alpha=8"],
        ["lora.dropout=0.3"],
        ["lora.targets=[q_proj]"],
        ["lora.options.use_rslora=true"],
        ["lora.options.use_dora=true"],
        ["lora.options.init_lora_weights=pissa"],
        ["lora.options.init_lora_weights=olora"],
        ["lora.options.init_lora_weights=gaussian"],
        ["train.optimizer=torch.optim.SGD", "train.optimizer_options={fused: false}"],
        ["train.optimizer=bitsandbytes.optim.AdamW8bit", "~train.optimizer_options.fused"],
        ["train.optimizer_options.betas=[0.5,0.5]"],
        ["train.optimizer_options.weight_decay=0.5"],
        ["train.loraplus_lr_ratio=16"],
        ["train.lr_scheduler=linear"],
        ["train.lr_scheduler=wsd"],
        ["train.warmup_ratio=0.5"],
        ["train.warmup_steps=3"],
        ["train.max_grad_norm=0.01"],
        ["train.neftune_noise_alpha=5"],
        ["train.lr=1e-3"],
        ["train.batch_size=1"],
        ["seed=5"],
    ],
    ids=lambda words: words[0],
)
def test_an_option_changes_the_adapter(words, trained, plain):
    assert not same(adapter(trained(*words)[0]), plain)


def test_nothing_is_left_to_chance(trained):
    words = ["lora.dropout=0.3", "lora.options.init_lora_weights=pissa", "train.neftune_noise_alpha=5"]
    assert same(adapter(trained(*words)[0]), adapter(trained(*words)[0]))


@pytest.mark.parametrize("words", [["train.gradient_checkpointing=true"], ["train.pack_tokens=null"]], ids=lambda words: words[0])
def test_what_only_costs_or_saves_memory_leaves_the_losses_as_they_are(words, number_format, trained):
    def losses(folder):
        return [event["loss"] for event in read_json_lines(folder / "events.jsonl") if event["event"] == "step"]

    assert losses(trained(*words)[2]) == pytest.approx(losses(trained()[2]), rel=tolerance(number_format) * 10)


def test_every_weight_of_a_dora_adapter_learns(trained, base_for, settings_for, tmp_path):
    settings = settings_for(tmp_path, "lora.options.use_dora=true")
    torch.manual_seed(settings.seed)
    start = adapter(model.add_adapter(base_for(), settings.lora, False))
    weights = adapter(trained("lora.options.use_dora=true")[0])
    assert any("magnitude" in name for name in weights)
    assert all(weight.dtype is torch.float32 and not torch.equal(weight, start[name]) for name, weight in weights.items())


@pytest.mark.parametrize("start", ["true", "pissa", "olora"])
def test_the_exported_adapter_in_plain_peft_is_ours_however_it_started(start, settings_for, base_for, examples, tiny, tmp_path):
    settings = settings_for(tmp_path, *SMALL, f"lora.options.init_lora_weights={start}")
    base = base_for()
    tuned = model.add_adapter(base, settings.lora, False)
    assert model.changes_base_weights(settings.lora) == (start != "true")
    if start != "true":
        model.save_initial_adapter(tuned, tmp_path / "start")
    with torch.no_grad():
        for _name, weight in tuned.named_parameters():
            if weight.requires_grad:
                weight += 0.02 * torch.randn_like(weight)
    tokens = torch.tensor([examples[0].prompt])
    with torch.no_grad():
        ours = tuned.eval()(input_ids=tokens).logits
        model.save(tuned, base, settings.model, tmp_path / "adapter", tmp_path / "start" if start != "true" else None)
        plain = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32).eval()(input_ids=tokens).logits
    torch.testing.assert_close(plain, ours, rtol=1e-4, atol=1e-4)


def test_an_adapter_that_starts_from_the_base_weights_needs_them_plain(base_for, settings_for, tmp_path):
    settings = settings_for(tmp_path, "lora.options.init_lora_weights=pissa")
    with pytest.raises(Problem, match="does not work with these base weights") as caught:
        model.add_adapter(base_for(schema.Quantisation.nf4), settings.lora, False)
    assert "quant=none" in caught.value.hint


def test_what_peft_can_do_is_let_through(settings_for, tmp_path):
    words = ["lora.options={use_rslora: true, rank_pattern: {q_proj: 4}}", "lora.options={use_rslora: true, init_lora_weights: pissa}"]
    for word in [*words, "lora.options={rank_pattern: {q_proj: 4}, init_lora_weights: olora}"]:
        model.adapter_config(settings_for(tmp_path, word).lora)


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (["lora.options.use_dorra=true"], "LoraConfig has no option `use_dorra`", "use_dora"),
        (["lora.options.init_lora_weights=eva"], "without looking at data", "pissa"),
        (["lora.options={use_dora: true, init_lora_weights: pissa}"], "DoRA on top of pissa", "one of them"),
        (
            ["lora.options={use_rslora: true, rank_pattern: {q_proj: 4}, init_lora_weights: olora}"],
            "rsLoRA and rank_pattern",
            "use_rslora=false",
        ),
        (["lora.options={use_rslora: true, alpha_pattern: {q_proj: 4}, init_lora_weights: pissa}"], "rsLoRA and alpha_pattern", "alpha_"),
        (["lora.options={use_rslora: 7}"], "lora.options.use_rslora is 7, and it is true or false", "`lora.options.use_rslora=true`"),
        (["lora.options={loftq_config: 3, init_lora_weights: loftq}"], "init_lora_weights is loftq", "olora"),
    ],
)
def test_what_peft_cannot_do_is_reported_before_the_model_is_loaded(words, what, hint, settings_for, tmp_path):
    with pytest.raises(Problem, match=what) as caught:
        model.adapter_config(settings_for(tmp_path, *words).lora)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (["train.optimizer=torch.optim.AdamX"], "torch.optim has no optimizer `AdamX`", "torch.optim.AdamW"),
        (["train.optimizer=torch.optim.Optimizer"], "has no optimizer `Optimizer`", "AdamW"),
        (["train.optimizer_options.amsgrad=1"], "amsgrad is 1, and it is true or false", "`train.optimizer_options.amsgrad=true`"),
        (["train.optimizer_options.fused=2"], "fused is 2, and it is true or false", "fused=true"),
        (["train.optimizer_options.fuse=true"], "takes no option `fuse`", "fused"),
        (["train.optimizer=bitsandbytes.optim.PagedAdamW8bit"], "takes no option `fused`", "betas"),
    ],
)
def test_what_an_optimizer_cannot_take_is_reported_before_the_model_is_loaded(words, what, hint, settings_for, tmp_path):
    with pytest.raises(Problem, match=what) as caught:
        optimizer.optimizer_class(settings_for(tmp_path, *words).train)
    assert hint in caught.value.hint


def test_a_value_that_the_optimizer_refuses_is_one_sentence(tuned, settings_for, tmp_path):
    with pytest.raises(Problem, match=r"torch.optim.AdamW refuses its options: .*[Bb]eta"):
        optimizer.build(tuned, settings_for(tmp_path, "train.optimizer_options.betas=[2.0,0.9]").train)


@pytest.mark.parametrize(
    "name", ["bitsandbytes.optim.AdamW8bit", "bitsandbytes.optim.PagedAdamW8bit", "torch.optim.SGD", "torch.optim.Adagrad"]
)
def test_any_optimizer_goes_on_where_it_was(name, settings_for, base_for, examples, tmp_path):
    words = ["lora.r=64", f"train.optimizer={name}", "train.steps=4", "train.save_steps=2", "train.batch_size=2", "train.eval_steps=9"]
    settings = settings_for(
        tmp_path, *words, "~train.optimizer_options.fused", "train.report_to=[]", "train.save_total_limit=9"
    )  # rank 64: 8-bit moments

    def attempt(store):
        torch.manual_seed(settings.seed)
        tuned = model.add_adapter(base_for(), settings.lora, False)
        order = Sampler([WeightedRows(examples)], settings.seed, 2)
        loop.train(tuned, order, examples[:1], settings, store, Record(tmp_path / "record"), ProcessGroup(), None)
        return adapter(tuned)

    store = checkpoint.CheckpointStore(tmp_path / "checkpoints", "x", 9)
    whole = attempt(store)
    (store.folder / "step-000004" / "COMPLETE").unlink()
    assert same(attempt(store), whole)


def test_a_faster_b_learns_faster_by_the_ratio(tuned, settings_for, tmp_path):
    learner = optimizer.build(tuned, settings_for(tmp_path, "train.loraplus_lr_ratio=16").train)
    optimizer.set_lr(learner, 0.5)
    names = {id(weight): name for name, weight in tuned.named_parameters()}
    for group in learner.param_groups:
        assert {"lora_B" in names[id(weight)] for weight in group["params"]} == {group["lr"] == 8.0}
    assert [group["lr"] for group in learner.param_groups] == [0.5, 8.0]


def test_wsd_stays_then_decays(settings_for, tmp_path):
    train = settings_for(tmp_path, "train.lr_scheduler=wsd", "train.decay_ratio=0.5", "train.warmup_steps=2", "train.lr=1.0").train
    rates = [optimizer.learning_rate(step, 10, train) for step in range(1, 11)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_it_stops_once_patience_is_at_its_end_and_stays_stopped(trained, monkeypatch):
    losses = iter([9.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    monkeypatch.setattr(loop, "evaluate_loss", lambda *_: next(losses))
    _, progress, folder = trained("train.steps=6", "train.eval_steps=1", "train.early_stopping_patience=2")
    assert (progress.step, progress.best_step, progress.over) == (3, 1, True)
    assert (folder / "checkpoints/step-000003").exists()


def test_a_time_budget_ends_training_at_a_saved_and_measured_step(trained):
    _, progress, folder = trained("train.max_hours=1e-9", "train.steps=50")
    assert (progress.step, progress.best_step) == (1, 1)
    assert (folder / "checkpoints/step-000001").exists()


def test_the_best_step_may_be_that_of_the_best_answers(trained):
    scores = iter([0.2, 0.9, 0.4, 0.1])
    _, progress, folder = trained("train.metric_for_best_model=macro_f1", "train.eval_steps=1", judge=lambda: next(scores))
    assert (progress.best_step, progress.best_score) == (2, 0.9)
    assert [event["macro_f1"] for event in read_json_lines(folder / "events.jsonl") if event["event"] == "score"] == [0.2, 0.9, 0.4, 0.1]


def test_an_epoch_visits_the_rows_of_each_source_as_often_as_its_weight_says(examples):
    order = Sampler([WeightedRows(examples[:2]), WeightedRows(examples[2:4], 2.0), WeightedRows(examples[4:], 0.5)], seed=1, batch_size=7)
    assert order.length == 2 + 4 + 1
    drawn = set()
    for epoch in (1, 2, 3, 4, 5, 6):
        rows = [row.row.id for row in order.batch(epoch)]
        assert all(rows.count(row.row.id) == 1 for row in examples[:2])
        assert all(rows.count(row.row.id) == 2 for row in examples[2:4])
        drawn |= {row.row.id for row in examples[4:] if row.row.id in rows}
    assert len(drawn) == 2, "each epoch draws anew"


def test_noise_is_as_large_as_the_paper_says_and_only_in_training(tuned, examples):
    (pack,) = packs(examples[:3], 10_000)
    embedded = tuned.get_input_embeddings()(pack.tokens)
    noise = model._inputs(tuned, pack, 5.0)["inputs_embeds"] - embedded
    own = noise[0, pack.lengths[0] : pack.lengths[0] + pack.lengths[1]]
    bound = 5 / ((pack.lengths[0] + pack.lengths[1]) * embedded.shape[-1]) ** 0.5
    assert 0.95 * bound < own.abs().max() <= bound * 1.001
    with attention.packed(tuned.get_base_model()):
        assert model.loss(tuned.eval(), pack) == model.loss(tuned, pack, 0.0)


def test_curves_reach_tensorboard_and_go_on_behind_the_step_of_a_resumed_run(trained, settings_for, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, _, folder = trained("train.report_to=[tensorboard]", "train.eval_steps=2")
    curves = EventAccumulator(str(folder / "tensorboard"))
    curves.Reload()
    losses = [event["loss"] for event in read_json_lines(folder / "events.jsonl") if event["event"] == "step"]
    assert [point.step for point in curves.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [point.value for point in curves.Scalars("train/loss")] == pytest.approx(losses, rel=1e-6)
    assert [point.step for point in curves.Scalars("eval/loss")] == [0, 2, 4]
    settings = settings_for(tmp_path)
    time.sleep(1.1)  # its files are read in the order of their names, which tell the second and then a number as text
    again = trackers.TensorBoard(folder, settings, 2)
    again.log({"train/loss": 7.0}, 3)
    again.close()
    curves = EventAccumulator(str(folder / "tensorboard"))
    curves.Reload()
    assert [(point.step, point.value) for point in curves.Scalars("train/loss")][-1] == (3, 7.0)
    assert [point.step for point in curves.Scalars("train/loss")] == [1, 2, 3]


def test_a_tracker_that_is_not_there_is_reported_before_the_model_is_loaded(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "mlflow" else name)
    with pytest.raises(Problem, match="no tracker `tensorbord`"):
        trackers.check_trackers(["tensorbord"])
    with pytest.raises(Problem, match="the tracker mlflow is not installed") as caught:
        trackers.check_trackers(["tensorboard", "mlflow"])
    assert "pip install mlflow" in caught.value.hint


def test_a_tracker_gets_every_figure(monkeypatch, trained):
    calls = []

    class Mine:
        def __init__(self, folder, settings, step):
            calls.append(("start", step))

        def log(self, figures, step):
            calls.append((step, sorted(figures)))

        def close(self):
            calls.append("closed")

    monkeypatch.setattr(trackers, "KINDS", {"json": Mine})
    trained("train.report_to=[json]", "train.steps=1")
    assert calls[0] == ("start", 0) and calls[-1] == "closed"
    assert (1, ["train/epoch", "train/grad_norm", "train/loss", "train/lr", "train/tok_s"]) in calls
    assert any(step == 1 and "eval/loss" in names for step, names in calls[1:-1])


def test_every_answer_of_a_conversation_has_loss_when_asked(template):
    from data.rows import normalise

    turns = [("user", "Hello there."), ("assistant", "Good day."), ("user", "And now?"), ("assistant", "Goodbye.")]
    row = normalise({"messages": [{"role": role, "content": text} for role, text in turns]}, "here:1")
    last, every = template.example(row), template.example(row, schema.LossOn.every_answer)
    assert (last.prompt, last.completion) == (every.prompt, every.completion), "what is learned changes no token"
    tokens = every.prompt + every.completion
    learned = [template.tokenizer.decode(tokens[start:end]) for start, end in every.turns]
    stop = template.tokenizer.decode([template.stop])
    assert learned == ["Good day." + stop, "Goodbye." + stop]
    assert [template.tokenizer.decode(tokens[start:end]) for start, end in last.turns] == ["Goodbye." + stop]
    (pack,) = packs([every, replace(last, row=row)], 10_000)
    beginning = pack.lengths[0]
    assert beginning < every.turns[0][0], "the first answer is each row's own"
    assert pack.labels.tolist() == [*tokens[every.turns[0][0] : every.turns[0][1]], *every.completion, *last.completion]
    sources = [pack.tokens[0, place + 1].item() for place in pack.supervised.tolist() if place + 1 < pack.tokens.shape[1]]
    assert sources == pack.labels.tolist()


OURS = {"r", "lora_alpha", "lora_dropout", "target_modules"}  # settings of their own


@pytest.mark.parametrize("option", sorted({each.name for each in fields(LoraConfig)} - lora_options.OPTIONS - OURS))
def test_an_option_whose_effect_is_not_proved_is_refused(option, settings_for, tmp_path):
    """PEFT takes peft_type and heeds it in no way, exports what VeLoRA learns in part, and cannot save replicated layers."""
    with pytest.raises(Problem, match=f"lora.options.{option} is PEFT's") as caught:
        model.adapter_config(settings_for(tmp_path, f"lora.options.{option}=true").lora)
    assert "use_rslora" in caught.value.hint


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["lora.targets=[q_proj,qproj]"], "lora.targets has 'qproj', which matches no layer"),
        (["lora.options.modules_to_save=[lm_haed]"], "modules_to_save has 'lm_haed', which matches no layer"),
        (["lora.options.exclude_modules=[vproj]"], "exclude_modules has 'vproj'"),
        (["lora.options.rank_pattern={qproj: 4}"], "rank_pattern has 'qproj'"),
        (["lora.options.alpha_pattern={qproj: 4}"], "alpha_pattern has 'qproj'"),
        (["lora.targets=[q_proj]", "lora.options.target_parameters=[mlp.up.weight]"], "target_parameters has 'mlp.up.weight'"),
        (["lora.options.trainable_token_indices=[5,640]"], "trainable_token_indices has 640, and the model has 640 tokens"),
        (["lora.options.trainable_token_indices={embed_tokens: [-1]}"], "has -1, and the model has 640 tokens"),
        (["lora.targets=[q_proj]", "lora.options.layers_to_transform=[0,9]"], "layers_to_transform has 9, and the model has 2 layers"),
    ],
)
def test_a_name_that_matches_nothing_of_the_model_is_refused(words, what, base, settings_for, tmp_path):
    """PEFT leaves it out without a word where any other name matches."""
    with pytest.raises(Problem, match=re.escape(what)) as caught:
        model.add_adapter(base, settings_for(tmp_path, *words).lora, gradient_checkpointing=False)
    assert "lora.targets=[down_proj,gate_proj," in caught.value.hint or "from 0 to " in caught.value.hint


def test_what_cannot_be_merged_is_refused_before_it_is_trained(settings_for, tmp_path):
    settings = settings_for(tmp_path, "lora.options.lora_bias=true", "publish.merged=true")
    with pytest.raises(Problem, match="lora_bias cannot be merged"):
        lora_options.check_merged(settings)
    lora_options.check_merged(replace(settings, publish=replace(settings.publish, merged=False)))
