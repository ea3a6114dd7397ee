"""A packed row gives what it gives alone: loss, gradients, and no glance at its neighbours."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from trainer import attention, model, pack


def gradients(tuned, packs):
    tuned.zero_grad()
    with attention.packed(tuned.get_base_model()):
        losses = [model.loss(tuned, each) for each in packs]
    sum(losses).backward()
    return sum(losses).item(), {name: weight.grad.clone() for name, weight in tuned.named_parameters() if weight.requires_grad}


def assert_same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    for name, gradient in one[1].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, other[1][name], rtol=2e-3, atol=2e-4)


def alone(tuned, example):
    """The loss by the book: one row, transformers' own attention, logits of every position."""
    tokens = torch.tensor([example.prompt + example.completion])
    logits = tuned(input_ids=tokens).logits[0, len(example.prompt) - 1 : -1]
    return functional.cross_entropy(logits.float(), torch.tensor(example.completion), reduction="sum")


def test_a_pack_gives_the_loss_and_gradients_of_its_rows_alone(tuned, examples):
    (packed,) = pack.packs(examples, 10_000)
    assert packed.lengths[0] > 0, "the rows share a beginning"
    tuned.zero_grad()
    by_the_book = sum(alone(tuned, example) for example in examples)
    by_the_book.backward()
    expected = by_the_book.item(), {name: weight.grad.clone() for name, weight in tuned.named_parameters() if weight.requires_grad}
    assert_same(gradients(tuned, [packed]), expected)


def test_rows_that_share_nothing_pack_as_well(tuned, examples):
    rows = [replace(example, prompt=[10 + index, *example.prompt[1:]]) for index, example in enumerate(examples)]
    (packed,) = pack.packs(rows, 10_000)
    assert packed.lengths[0] == 0
    with torch.no_grad(), attention.packed(tuned.get_base_model()):
        found = model.loss(tuned, packed).item()
    with torch.no_grad():
        assert found == pytest.approx(sum(alone(tuned, row).item() for row in rows), rel=1e-5)


def test_several_packs_give_what_one_gives(tuned, examples):
    several = pack.packs(examples, 900)
    assert len(several) > 2
    assert_same(gradients(tuned, several), gradients(tuned, pack.packs(examples, 10_000)))


def test_a_row_does_not_see_its_neighbour(tuned, examples):
    def logits(second):
        (packed,) = pack.packs([examples[0], second], 10_000)
        first = (
            slice(0, len(examples[0].completion))
            if packed.lengths[1] == len(examples[0]) - packed.lengths[0]
            else slice(len(second.completion), None)
        )
        with torch.no_grad(), attention.packed(tuned.get_base_model()):
            return tuned(
                input_ids=packed.tokens,
                position_ids=packed.positions,
                logits_to_keep=packed.supervised,
                lengths=packed.lengths,
                use_cache=False,
            ).logits[0, first]

    other = replace(examples[1], completion=[token % 600 + 1 for token in examples[1].completion])
    torch.testing.assert_close(logits(examples[1]), logits(other), rtol=0, atol=0)


def test_the_loss_is_on_the_answer_and_its_stop_token_only(examples, template):
    (packed,) = pack.packs(examples, 10_000)
    assert packed.labels.tolist().count(template.stop) == len(examples)
    assert len(packed.supervised) == len(packed.labels) == sum(len(example.completion) for example in examples)
    follows = packed.tokens[0].roll(-1)[packed.supervised]
    assert torch.equal(follows, packed.labels)


def test_a_pack_stays_within_its_limit_and_no_row_is_lost_or_cut(examples):
    packs = pack.packs(examples, 800)
    assert sum(len(each.labels) for each in packs) == sum(len(example.completion) for example in examples)
    for each in packs:
        shared, *rests = each.lengths
        assert sum(rests) + shared * len(rests) <= 800
    assert [len(each.lengths) - 1 for each in pack.packs(examples, 1)] == [1] * len(examples)


def test_a_sliding_window_is_kept_within_a_pack():
    mask = attention._masks((2, 4), 3, torch.float32, torch.device("cpu"))[1][0, 0]
    assert (mask == 0).int().tolist() == [[1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1]]
