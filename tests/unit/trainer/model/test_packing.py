"""A packed row gives what it gives alone: loss, gradients, and no glance at its neighbours."""

from dataclasses import replace

import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from torch.nn import functional

from conf import schema
from conf.problem import Problem
from tests.unit.trainer.conftest import adapted
from tests.unit.trainer.formats import computed_in, same_gradients, tolerance
from trainer.evaluate import eval_step
from trainer.model import attention, model, nf4, packing


def gradients(tuned, packs):
    tuned.zero_grad()
    with attention.packed(tuned.get_base_model()):
        losses = [model.loss(tuned, each) for each in packs]
    sum(losses).backward()
    return sum(losses).item(), {name: weight.grad.clone() for name, weight in tuned.named_parameters() if weight.requires_grad}


def assert_same(one, other, dtype):
    assert one[0] == pytest.approx(other[0], rel=tolerance(dtype))
    same_gradients(one[1], other[1], dtype)


def alone(tuned, example):
    """The loss by the book: one row, transformers' own attention, logits of every position."""
    tokens = torch.tensor([example.prompt + example.completion])
    with torch.autocast("cpu", torch.bfloat16, enabled=tuned.get_base_model().dtype is torch.bfloat16):
        logits = tuned(input_ids=tokens).logits[0, len(example.prompt) - 1 : -1]
    return functional.cross_entropy(logits.float(), torch.tensor(example.completion), reduction="sum")


def test_a_pack_gives_the_loss_and_gradients_of_its_rows_alone(number_format, tuned, examples):
    (packed,) = packing.packs(examples, 10_000)
    assert packed.lengths[0] > 0, "the rows share a beginning"
    tuned.zero_grad()
    by_the_book = sum(alone(tuned, example) for example in examples)
    by_the_book.backward()
    expected = by_the_book.item(), {name: weight.grad.clone() for name, weight in tuned.named_parameters() if weight.requires_grad}
    assert_same(gradients(tuned, [packed]), expected, number_format)


def test_rows_that_share_nothing_pack_as_well(number_format, tuned, examples):
    rows = [replace(example, prompt=[10 + index, *example.prompt[1:]]) for index, example in enumerate(examples)]
    (packed,) = packing.packs(rows, 10_000)
    assert packed.lengths[0] == 0
    with torch.no_grad(), attention.packed(tuned.get_base_model()):
        loss = model.loss(tuned, packed).item()
    with torch.no_grad():
        assert loss == pytest.approx(sum(alone(tuned, row).item() for row in rows), rel=tolerance(number_format))


def test_several_packs_give_what_one_gives(number_format, tuned, examples):
    several = packing.packs(examples, 900)
    assert len(several) > 2
    assert_same(gradients(tuned, several), gradients(tuned, packing.packs(examples, 10_000)), number_format)


def test_a_row_does_not_see_its_neighbour(number_format, tuned, examples):
    def logits(second):
        (packed,) = packing.packs([examples[0], second], 10_000)
        first = (
            slice(0, len(examples[0].completion))
            if packed.lengths[1] == len(examples[0]) - packed.lengths[0]
            else slice(len(second.completion), None)
        )
        with torch.no_grad(), attention.packed(tuned.get_base_model()):
            return model.logits(tuned, packed)[first]

    other = replace(examples[1], completion=[token % 600 + 1 for token in examples[1].completion])
    torch.testing.assert_close(logits(examples[1]), logits(other), rtol=0, atol=0)


def test_the_loss_is_on_the_answer_and_its_stop_token_only(examples, template):
    (packed,) = packing.packs(examples, 10_000)
    assert packed.labels.tolist().count(template.stop) == len(examples)
    assert len(packed.supervised) == len(packed.labels) == sum(len(example.completion) for example in examples)
    follows = packed.tokens[0].roll(-1)[packed.supervised]
    assert torch.equal(follows, packed.labels)


def test_a_pack_stays_within_its_limit_and_no_row_is_lost_or_cut(examples):
    packs = packing.packs(examples, 800)
    assert sum(len(each.labels) for each in packs) == sum(len(example.completion) for example in examples)
    for each in packs:
        shared, *rests = each.lengths
        assert sum(rests) + shared * len(rests) <= 800
    assert [len(each.lengths) - 1 for each in packing.packs(examples, 1)] == [1] * len(examples)


def test_a_sliding_window_is_kept_within_a_pack():
    mask = attention._masks((2, 4), 3, torch.float32, torch.device("cpu"))[1][0, 0]
    assert (mask == 0).int().tolist() == [[1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("kind", schema.Quantisation)
def test_a_measurement_changes_no_gradient(kind, number_format, base_for, examples):
    """On a CPU with AVX512-BF16, bitsandbytes would repack its weights in the measurement, and let no gradient through from then on."""
    tuned, packed = adapted(base_for(kind)), packing.packs(examples, 10_000)
    before = gradients(tuned, packed)
    with attention.packed(tuned.get_base_model()):
        eval_step.measure(tuned, examples, 10_000, None, lambda: None)
    assert gradients(tuned.train(), packed)[0] == before[0]
    assert all(torch.equal(gradient, before[1][name]) for name, gradient in gradients(tuned, packed)[1].items())


@pytest.fixture
def able(monkeypatch):
    """Every layer is made as on a CPU with AVX512-BF16, whatever this one is."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)


def test_no_4_bit_layer_repacks_its_weights_in_training_or_out_of_it(able, base_for, examples):
    tuned = adapted(base_for(schema.Quantisation.nf4))
    layers, packed = nf4.layers(tuned), packing.packs(examples, 10_000)
    assert len(layers) == 14
    stored = {name: layer.weight.data.clone() for name, layer in layers.items()}
    for training in (False, True, False):
        tuned.train(training)
        with torch.no_grad(), attention.packed(tuned.get_base_model()):
            model.loss(tuned, packed[0])
        for name, layer in layers.items():
            assert layer.training == training and not getattr(layer, nf4.REPACKS), name
            assert torch.equal(layer.weight.data, stored[name]) and not getattr(layer.weight.quant_state, "packing_format_for_cpu", False)


def test_a_layer_that_would_not_say_whether_it_repacks_is_refused(base_for, monkeypatch):
    monkeypatch.setattr(nf4, "REPACKS", "another_name")
    with pytest.raises(Problem, match="it is unknown whether model.layers.0.self_attn.q_proj keeps its weights") as caught:
        base_for(schema.Quantisation.nf4)
    assert "quant=none" in caught.value.hint


@pytest.mark.skipif(not has_avx512bf16(), reason="bitsandbytes repacks only on a CPU with AVX512-BF16")
def test_left_to_itself_bitsandbytes_does_repack_here(base_for, examples, monkeypatch):
    """The other tests have a subject: without our word the layers lose their gradient on this CPU."""
    monkeypatch.setattr(nf4, "disable_repacking", lambda _model: None)
    with computed_in("bf16"):
        tuned = adapted(base_for(schema.Quantisation.nf4))
    with attention.packed(tuned.get_base_model()):
        eval_step.measure(tuned, examples, 10_000, None, lambda: None)
    assert any(getattr(layer.weight.quant_state, "packing_format_for_cpu", False) for layer in nf4.layers(tuned).values())
