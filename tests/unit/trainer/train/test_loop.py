"""A step is a step however it is packed; every epoch sees every row once; nothing that is not finite goes on."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from conf.problem import Problem
from conf.schema import LrScheduler
from tests.unit.trainer.formats import same_gradients, tolerance
from trainer.estimate import memory
from trainer.evaluate import eval_step
from trainer.files import read_json_lines
from trainer.model import attention, model
from trainer.model.distributed import ProcessGroup
from trainer.record.record import Record
from trainer.rows.sampler import Sampler, WeightedRows
from trainer.train import checkpoint, loop, optimizer


@pytest.fixture
def settings(settings_for, tmp_path):
    return settings_for(tmp_path)


def step(tuned, rows, settings):
    learner = optimizer.build(tuned, settings.train)
    with attention.packed(tuned.get_base_model()):
        return loop.training_step(1, rows, tuned, learner, 1e-2, settings, ProcessGroup())


def order(examples, settings):
    return Sampler([WeightedRows(examples)], settings.seed, settings.train.batch_size)


def test_a_step_in_many_packs_is_the_step_in_one(number_format, tuned, examples, settings):
    before = {name: weight.detach().clone() for name, weight in tuned.named_parameters() if weight.requires_grad}
    outcomes = []
    for limit in (10_000, 500, None):
        tuned.load_state_dict(before, strict=False)
        settings.train.pack_tokens = limit
        figures = step(tuned, examples, settings)
        outcomes.append((figures, {name: weight.grad.clone() for name, weight in tuned.named_parameters() if weight.requires_grad}))
    (one, gradients), *rest = outcomes
    for many, others in rest:
        assert one["loss"] == pytest.approx(many["loss"], rel=tolerance(number_format))
        assert one["grad_norm"] == pytest.approx(many["grad_norm"], rel=tolerance(number_format))
        same_gradients(gradients, others, number_format)


def test_the_loss_of_a_step_is_the_mean_over_its_supervised_tokens(number_format, tuned, examples, settings):
    expected = sum(alone.item() for alone in (_loss(tuned, [row]) for row in examples)) / sum(len(row.completion) for row in examples)
    assert step(tuned, examples, settings)["loss"] == pytest.approx(expected, rel=tolerance(number_format))


@torch.no_grad()
def _loss(tuned, rows):
    with attention.packed(tuned.get_base_model()):
        return sum(model.loss(tuned, pack) for pack in loop.packs(rows, 4096))


def test_every_epoch_has_every_row_once_and_an_order_of_its_own(examples, settings):
    settings.train.batch_size = 4
    ids = [row.row.id for step in (1, 2, 3) for row in order(examples, settings).batch(step)]
    first, second = ids[:6], ids[6:]
    assert Counter(first) == Counter(second) == Counter(example.row.id for example in examples)
    assert first != second
    assert ids == [row.row.id for step in (1, 2, 3) for row in order(examples, settings).batch(step)]


@pytest.mark.parametrize("schedule", LrScheduler)
def test_the_learning_rate_rises_then_follows_its_schedule(schedule, settings):
    settings.train.lr_scheduler, settings.train.warmup_ratio, settings.train.lr = schedule, 0.2, 1.0
    rates = [optimizer.learning_rate(step, 10, settings.train) for step in range(1, 11)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[9] == 1.0 if schedule is LrScheduler.constant else 0 < rates[9] < 0.7
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_a_loss_that_is_not_finite_stops_the_run_before_a_weight_changes_and_names_the_row(tuned, examples, settings):
    weights = {name: weight.detach().clone() for name, weight in tuned.named_parameters() if weight.requires_grad}
    others = {token for row in examples if row is not examples[2] for token in row.prompt + row.completion}
    own = next(token for token in examples[2].prompt if token not in others)

    def poison(_module, tokens, embedded):
        return embedded.masked_fill((tokens[0] == own)[..., None], float("nan"))

    tuned.get_base_model().get_input_embeddings().register_forward_hook(poison)
    with pytest.raises(Problem, match=f"the loss of step 1 is nan; the rows {examples[2].row.id} have no finite loss") as caught:
        step(tuned, examples, settings)
    assert caught.value.reason == "non_finite_loss"
    for name, weight in tuned.named_parameters():
        if weight.requires_grad:
            assert torch.equal(weight, weights[name])


def test_the_share_of_a_known_card_s_speed_is_recorded_and_no_other_is_made_up(tuned, examples, settings, tmp_path, monkeypatch):
    settings.train.steps, settings.train.batch_size, settings.train.gradient_checkpointing = 1, 2, "yes"
    monkeypatch.setattr(optimizer, "learning_rate", lambda *_: 0.0)  # the same step each time
    recorded = {}
    for card in ("NVIDIA L4", "NVIDIA Z1", None):
        monkeypatch.setattr(model, "gpu_name", lambda card=card: card)
        record, store = Record(tmp_path / str(card)), checkpoint.CheckpointStore(tmp_path / str(card) / "checkpoints", "x", 1)
        loop.train(tuned, order(examples, settings), examples[:1], settings, store, record, ProcessGroup(), None)
        (recorded[card],) = [event for event in read_json_lines(record.events) if event["event"] == "step"]
    assert recorded[None]["mfu"] is None and recorded["NVIDIA Z1"]["mfu"] is None
    rows = order(examples, settings).batch(1)
    shape, plain = model.shape_of_model(tuned), replace(settings, train=replace(settings.train, gradient_checkpointing="no"))
    operations = memory.flops(shape, plain, sum(map(len, rows)), sum(row.learned for row in rows))
    seconds = sum(map(len, rows)) / recorded["NVIDIA L4"]["tok_s"]
    assert recorded["NVIDIA L4"]["mfu"] == pytest.approx(operations / seconds / 121e12, rel=0.01)


def test_a_gradient_that_is_not_finite_stops_the_run_before_a_weight_changes(tuned, examples, settings):
    weights = {name: weight.detach().clone() for name, weight in tuned.named_parameters() if weight.requires_grad}
    first = next(weight for weight in tuned.parameters() if weight.requires_grad)
    first.register_hook(lambda gradient: gradient + float("inf"))
    ids = ", ".join(example.row.id for example in examples)
    with pytest.raises(Problem, match=f"a gradient of step 1 is not finite; its rows are {ids}") as caught:
        step(tuned, examples, settings)
    assert caught.value.reason == "non_finite_loss"
    assert all(torch.equal(weight, weights[name]) for name, weight in tuned.named_parameters() if weight.requires_grad)


@pytest.mark.parametrize("first", [0, 2], ids=["before training", "at the first measurement"])
def test_a_held_out_loss_that_is_not_finite_is_never_the_best_one(first, tuned, examples, settings, tmp_path):
    settings.train.steps, settings.train.eval_steps, settings.train.save_steps, settings.train.batch_size = 4, 2, 2, 2
    trained = []

    def poison(module, _tokens, embedded):
        trained.extend([True] * module.training)
        return embedded * float("nan") if len(trained) >= first and not module.training else embedded

    tuned.get_base_model().get_input_embeddings().register_forward_hook(poison)
    store = checkpoint.CheckpointStore(tmp_path / "checkpoints", "x", 1)
    what = f"the loss on held-out rows after step {first} is nan; the rows {examples[0].row.id} have no finite loss"
    with pytest.raises(Problem, match=what) as caught:
        loop.train(tuned, order(examples, settings), examples[:1], settings, store, Record(tmp_path), ProcessGroup(), None)
    assert caught.value.reason == "non_finite_loss" and "train.lr" in caught.value.hint
    assert store.newest == 0, "what cannot be measured was saved as the best"


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"token_match": 0.761, "field_match": 0.185}, "next-token accuracy 76%; whole fields right 18%"),
        ({"token_match": 0.5}, "next-token accuracy 50%"),
    ],
)
def test_held_out_figures_are_told_by_their_names(figures, words, settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(eval_step, "measure", lambda *given: {"loss": 0.25, **figures})
    loop.evaluate_loss(None, [], settings, 8, Record(tmp_path), [], ProcessGroup())
    assert capsys.readouterr().out == f"step 8: loss on held-out rows 0.2500; {words}\n"


def test_the_best_step_is_a_saved_step_even_between_two_checkpoints(tuned, examples, settings, tmp_path):
    settings.train.steps, settings.train.eval_steps, settings.train.save_steps, settings.train.save_total_limit = 6, 1, 100, 1
    settings.train.lr, settings.train.batch_size = 0.1, 2
    noise = replace(examples[0], completion=[7 * n % 600 for n in range(50)], values={})  # gets less likely as the rows are learned
    store = checkpoint.CheckpointStore(tmp_path / "checkpoints", "x", 1)
    record = Record(tmp_path)
    progress = loop.train(tuned, order(examples, settings), [noise], settings, store, record, ProcessGroup(), None)
    assert 0 < progress.best_step < 5, "a step that only being the best keeps"
    store.restore(progress.best_step, tuned)
    with attention.packed(tuned.get_base_model()):
        assert loop.evaluate_loss(tuned, [noise], settings, 0, record, [], ProcessGroup()) == pytest.approx(progress.best_loss, rel=1e-6)


def test_the_rows_that_steps_reach_are_counted_once(examples):
    order = Sampler([WeightedRows(examples[:4]), WeightedRows(examples[4:], 0.5)], 17, 2)
    for steps in range(9):
        reached = {example.row.id for step in range(1, steps + 1) for example in order.batch(step)}
        assert order.rows_seen(steps) == len(reached)
