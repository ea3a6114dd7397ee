"""A GPU's kernels: held to rows alone on this CPU, with a function that does what torch says of its kernel, and chosen by the proof."""

import inspect
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

from tests.unit.trainer.conftest import adapted
from tests.unit.trainer.formats import same_gradients, tolerance
from trainer.model import attention, chunked_loss, model, packing, proof, varlen
from trainer.model.kernels import Kernels

TRAIN = SimpleNamespace(pack_tokens=4096, neftune_noise_alpha=0.0)
LENGTHS = [[0, 5, 3], [4, 6, 2, 3]]  # of a shared beginning, then of each row's rest


def by_the_documents(*words, **options):
    """What torch documents of `varlen_attn`, row by row; causal rows end where their keys end, as in flash attention."""
    given = inspect.signature(varlen_attn).bind(*words, **options)
    given.apply_defaults()
    asked = SimpleNamespace(**given.arguments)
    assert asked.cu_seq_q.dtype == asked.cu_seq_k.dtype == torch.int32
    assert asked.max_q == asked.cu_seq_q.diff().max() and asked.max_k == asked.cu_seq_k.diff().max()
    assert asked.cu_seq_q[-1] == len(asked.query) and asked.cu_seq_k[-1] == len(asked.key) == len(asked.value)
    assert asked.enable_gqa or asked.query.shape[1] == asked.key.shape[1]
    before, behind = asked.window_size
    outputs = []
    for row in range(len(asked.cu_seq_q) - 1):
        own, seen = (slice(*starts[row : row + 2].tolist()) for starts in (asked.cu_seq_q, asked.cu_seq_k))
        query, key, value = (states.transpose(0, 1)[None] for states in (asked.query[own], asked.key[seen], asked.value[seen]))
        place = torch.arange(query.shape[2])[:, None] + key.shape[2] - query.shape[2] - torch.arange(key.shape[2])
        visible = (place >= -behind) & ((place <= before) | (before < 0))
        found = functional.scaled_dot_product_attention(query, key, value, visible, scale=asked.scale, enable_gqa=asked.enable_gqa)
        outputs.append(found[0].transpose(0, 1))
    return torch.cat(outputs)


@pytest.fixture
def kernel(tuned, examples, monkeypatch):
    """The kernel's place, taken by a function that computes on a CPU; from here on the trainer takes this machine for one with a GPU."""
    monkeypatch.setattr(varlen, "varlen_attn", by_the_documents)
    monkeypatch.setattr(model, "has_gpu", lambda: True)
    monkeypatch.setattr(varlen, "refusal", lambda _model: None)
    return monkeypatch


def states(lengths: list[int], **options) -> list[torch.Tensor]:
    torch.manual_seed(3)
    return [torch.randn(1, heads, sum(lengths), 16, requires_grad=True, **options) for heads in (4, 2, 2)]


@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("lengths", LENGTHS, ids=["apart", "shared"])
def test_the_kernel_is_asked_for_what_the_row_loop_computes(kernel, lengths, window):
    module, results = SimpleNamespace(num_key_value_groups=2, is_causal=True), []
    for attend in (varlen.attend, attention._within_rows):
        inputs = states(lengths)
        output, _ = attend(module, *inputs, None, lengths=lengths, sliding_window=window, scaling=0.3)
        (output * torch.linspace(0, 1, output.numel()).view_as(output)).sum().backward()
        results.append([output, *(tensor.grad for tensor in inputs)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lengths", LENGTHS, ids=["apart", "shared"])
def test_torch_s_own_kernel_takes_what_it_is_given(lengths):
    """On the meta device, which computes shapes: its operator, its gradients, the number of heads."""
    inputs = states(lengths, device="meta", dtype=torch.bfloat16)
    output, _ = varlen.attend(None, *inputs, None, lengths=lengths, sliding_window=3, scaling=0.3)
    output.sum().backward()
    assert output.shape == (1, sum(lengths), 4, 16) and [tensor.grad.shape for tensor in inputs] == [tensor.shape for tensor in inputs]


def measured(tuned, pack, implementation, loss=model.loss):
    tuned.zero_grad()
    with attention.packed(tuned.get_base_model(), implementation):
        total = loss(tuned, pack)
    total.backward()
    return total.item(), {name: weight.grad.clone() for name, weight in tuned.named_parameters() if weight.requires_grad}


def same(one, other, dtype):
    assert one[0] == pytest.approx(other[0], rel=tolerance(dtype))
    same_gradients(one[1], other[1], dtype)


def test_a_model_gives_the_same_by_either(kernel, number_format, tuned, examples):
    (pack,) = packing.packs(examples, 10_000)
    assert pack.lengths[0]
    same(measured(tuned, pack, varlen.VARLEN), measured(tuned, pack, attention.PACKED), number_format)


def test_the_chunked_loss_is_the_plain_one(number_format, tuned, examples):
    (pack,) = packing.packs(examples, 10_000)
    head, plain = tuned.get_base_model().lm_head, measured(tuned, pack, attention.PACKED)
    for chunk in (7, chunked_loss.CHUNK, 10_000):
        chunked = measured(tuned, pack, attention.PACKED, lambda *words, size=chunk: chunked_loss.loss(*words, chunk=size))
        same(chunked, plain, number_format)
        assert "forward" not in vars(head), "the head computes again"


def test_the_proof_takes_the_kernels_that_are_right(kernel, number_format, tuned, examples):
    result = proof.verify_training(tuned, examples, TRAIN)
    assert result.packs and result.kernels == Kernels(varlen.VARLEN, True, "attention by varlen_attn; loss by linear_cross_entropy")
    assert result.kernels.loss is chunked_loss.loss and result.kernels.told in result.summary


def leak(*words, **options):
    """As if the kernel took no notice of where rows begin."""
    given = inspect.signature(varlen_attn).bind(*words, **options).arguments
    whole = torch.tensor([0, len(given["query"])], dtype=torch.int32)
    ends = {"cu_seq_q": whole, "cu_seq_k": torch.tensor([0, len(given["key"])], dtype=torch.int32)}
    return by_the_documents(**given | ends | {"max_q": len(given["query"]), "max_k": len(given["key"])})


def refuse(*_words, **_options):
    raise RuntimeError("FlashAttention forward only supports head dimension at most 256\nand more")


@pytest.mark.parametrize(("wrong", "why"), [(leak, "gives another result"), (refuse, "FlashAttention forward only supports head dim")])
def test_a_kernel_that_is_wrong_or_refuses_is_left_and_the_log_says_so(kernel, tuned, examples, wrong, why):
    kernel.setattr(varlen, "varlen_attn", wrong)
    result = proof.verify_training(tuned, examples, TRAIN)
    assert result.packs and result.kernels.attention == attention.PACKED and result.kernels.chunked_loss
    assert "attention row by row: " in result.summary and why in result.summary and "\n" not in result.summary


def test_logits_that_are_more_than_the_head_s_are_seen(kernel, tuned, examples):
    """As in models that cap their logits."""

    def cap(_module, _inputs, output):
        output.logits = torch.tanh(output.logits)

    tuned.get_base_model().register_forward_hook(cap)
    result = proof.verify_training(tuned, examples, TRAIN)
    assert not result.kernels.chunked_loss and "all logits at once: linear_cross_entropy gives another result" in result.summary
    assert result.packs and result.kernels.attention == varlen.VARLEN


def test_a_head_that_is_trained_keeps_the_plain_loss(tuned):
    assert chunked_loss.refusal(tuned) is None
    tuned.get_base_model().lm_head.weight.requires_grad = True
    assert "trained" in chunked_loss.refusal(tuned)


def test_a_head_that_is_cut_up_over_cards_keeps_the_plain_loss(tuned):
    base = tuned.get_base_model()
    base.__class__ = type("FSDPLlama", (FSDPModule, type(base)), {})  # as `fully_shard` does
    assert "cut up over the cards" in chunked_loss.refusal(tuned)


@pytest.mark.parametrize(
    ("capability", "dtype", "dropout", "why"),
    [((7, 5), torch.bfloat16, 0.0, "T4 is older"), ((8, 9), torch.float32, 0.0, "float32"), ((8, 9), torch.bfloat16, 0.1, "dropout")],
)
def test_what_the_kernel_cannot_compute_is_not_tried(monkeypatch, capability, dtype, dropout, why):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "T4")
    config = SimpleNamespace(attention_dropout=dropout, hidden_size=8)
    config.get_text_config = lambda: config
    assert why in varlen.refusal(SimpleNamespace(config=config, device=torch.device("cuda"), dtype=dtype))


def test_without_a_gpu_nothing_of_it_is_tried(tuned, examples):
    result = proof.verify_training(tuned, examples, TRAIN)
    assert result.kernels == Kernels(told="attention row by row, as on every CPU") and result.kernels.loss is model.loss


@pytest.mark.parametrize("implementation", [attention.PACKED, varlen.VARLEN])
def test_a_pack_s_loss_and_gradients_read_nothing_from_the_device(base, examples, implementation, monkeypatch):
    """The meta device has no numbers: whoever asks it for one gets an error. A GPU would be waited for."""
    monkeypatch.setattr(torch, "autocast", lambda *_words, **_options: nullcontext())  # it knows no such device
    tuned = adapted(base).to("meta")
    with attention.packed(tuned.get_base_model(), implementation):
        for pack in packing.packs(examples, 900):
            model.loss(tuned, pack).backward()
    assert all(weight.grad is not None for weight in tuned.parameters() if weight.requires_grad)
