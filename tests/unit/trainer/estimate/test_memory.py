"""What is planned is what is counted: bytes of weights, of moments, and of the tensors that autograd keeps."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from conf import load, schema
from data.rows import read
from tests.unit.trainer import architectures
from tests.unit.trainer.conftest import ROOT, TRAIN
from tests.unit.trainer.counting import counting, most
from tests.unit.trainer.llama import LLAMA_8B
from trainer.estimate import memory, shape
from trainer.evaluate import evaluate
from trainer.model import attention, lora_options, model, packing
from trainer.model.distributed import ProcessGroup
from trainer.record.record import Record
from trainer.rows import prompt
from trainer.rows.sampler import Sampler, WeightedRows
from trainer.train import loop, optimizer
from trainer.train.checkpoint import CheckpointStore

SMALL = ROOT / ".cache/models/smollm2-135m"


def shape_of(folder: Path) -> shape.Shape:
    """As on the laptop, from the headers of the model's files."""
    return shape.shape(shape.of_folder(folder), json.loads((folder / "config.json").read_text()))


def planned_load(packed: packing.Pack) -> memory.ForwardPass:
    return memory.ForwardPass(packed.tokens.shape[1], packed.lengths[1:], packed.lengths[0], len(packed.labels))


def counted(tuned, packed) -> int:
    """Bytes of all tensors that autograd keeps for one pack, each storage once; weights are none of them."""
    weights = {weight.untyped_storage().data_ptr() for weight in [*tuned.parameters(), *tuned.buffers()]}
    saved = {}

    def record_tensor(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no other tensor takes its place
        return tensor

    attention._masks.cache_clear()
    with attention.packed(tuned.get_base_model()), torch.autograd.graph.saved_tensors_hooks(record_tensor, lambda tensor: tensor):
        model.loss(tuned, packed)
    return sum(size for size, _ in saved.values())


OPTIONS = [
    ["lora.options.modules_to_save=[embed_tokens,lm_head]"],
    ["lora.options.modules_to_save=[down_proj]", "lora.targets=[q_proj]"],
    ["lora.options.trainable_token_indices=[1,5,7]"],
    ["lora.targets=[q_proj,embed_tokens]"],
    ["lora.targets=[q_proj,lm_head]"],
]


@pytest.mark.parametrize("words", OPTIONS)
def test_what_learns_beside_the_adapters_matrices_is_planned(words, tiny, settings_for, tmp_path):
    settings = settings_for(tmp_path, "quant=none", *words)
    tuned = model.add_adapter(model.load(settings.model, settings.quant), settings.lora, gradient_checkpointing=False)
    planned = memory.trainable_parameters(shape_of(tiny), settings.lora)
    assert planned == pytest.approx(sum(weight.numel() for weight in tuned.parameters() if weight.requires_grad), rel=0.1)


@pytest.mark.parametrize("words", [[], ["lora.targets=[q_proj,down_proj]"]], ids=["all", "named"])
@pytest.mark.parametrize("kind", sorted({*shape.ADAPTED_EXPERTS, "qwen2_moe", "granitemoe", "llama4_text", "flint"}))
def test_what_learns_of_a_mixture_of_experts_is_planned(kind, words, settings_for, tmp_path):
    small_model = architectures.small(kind)
    if "q_proj" not in lora_options.linear_names(small_model):  # DeepSeek has two in its place
        words = [word.replace("q_proj", "o_proj") for word in words]
    settings = settings_for(tmp_path, "quant=none", *words)
    sizes = model.shape_of_model(small_model)
    tuned = model.add_adapter(model.BaseModel(small_model, None, None, [], "fp32", "sdpa"), settings.lora, gradient_checkpointing=False)
    assert memory.trainable_parameters(sizes, settings.lora) == sum(weight.numel() for weight in tuned.parameters() if weight.requires_grad)


@pytest.mark.parametrize(
    ("read", "written", "words", "moment"),
    [
        (200, 2, ["train.eval_batch_size=4"], "reading"),
        (300, 8, ["train.eval_batch_size=2", "lora.targets=[q_proj,v_proj]"], "reading"),
        (20, 300, ["train.eval_batch_size=8"], "writing"),
    ],
)
def test_scoring_takes_as_many_bytes_as_are_planned(read, written, words, moment, tiny, settings_for, tmp_path):
    """At its fullest moment, by torch's own count; the weights lie there before."""
    settings = settings_for(tmp_path, "quant=none", f"data.max_new_tokens={written}", *words)
    base = model.load(settings.model, settings.quant)
    tuned = model.add_adapter(base, settings.lora, gradient_checkpointing=False).eval()
    template, examples = prompt.Prompt(base.tokenizer, base.stops), [prompt.Example(None, [5] * read, [1])] * 16
    model.use_greedy_decoding(base, [base.model.config.vocab_size - 1])  # never the likeliest: all are written
    batch = [[7] * (read - 1), *[example.prompt for example in examples]][
        : settings.train.eval_batch_size
    ]  # one is padded: there is a mask
    with counting() as counted, torch.inference_mode():
        evaluate.generate_batch(tuned, template, batch, written)
    planned = memory.scoring_memory(shape_of(tiny), settings, examples, base.model.dtype.itemsize)
    assert ("logits" in planned) == (moment == "writing")
    lying = sum(planned.pop(name) for name in ("base weights", "adapter", "gradients"))
    assert lying == pytest.approx(sum(weight.nbytes * (1 + weight.requires_grad) for weight in tuned.parameters()), rel=0.01)
    assert sum(planned.values()) == pytest.approx(most(counted), rel=0.1)


@pytest.mark.parametrize("width", [torch.float32, torch.bfloat16])
def test_logits_take_as_many_bytes_as_are_planned(width):
    """The fullest moment of a loss and its gradient, by torch's own count; the logits themselves are gone by then, as in `model.loss`."""
    logits = torch.randn(64, 2000).to(width).requires_grad_()
    with counting() as counted:
        torch.nn.functional.cross_entropy(logits.float(), torch.zeros(64, dtype=torch.long), reduction="sum").backward()
    assert most(counted) / logits.numel() == pytest.approx(memory.LOGITS, rel=0.1)


NESTED = ["gemma3"]
MIXED_EXPERTS = ["mixtral", "qwen3_moe", "qwen2_moe", "deepseek_v3"]
OTHERS = ["llama", "gpt_neox", "phi3", "qwen3_next"]


@pytest.mark.parametrize("kind", MIXED_EXPERTS + NESTED + OTHERS)
@pytest.mark.parametrize("quant", schema.Quantisation)
def test_base_weights_of_any_model_are_counted_before_they_are_loaded(kind, quant, tiny, tmp_path):
    """A mixture of experts, whose experts NF4 leaves as they are, and a model of text and images among them."""
    folder = like(kind, tiny, tmp_path)
    settings = schema.Quant(quant, True)
    weights = model.load(schema.Model(str(folder), "main", "", False), settings).model
    states = [weight.quant_state for weight in weights.parameters() if hasattr(weight, "quant_state")]
    constants = sum(state.absmax.nbytes + state.state2.absmax.nbytes for state in states)
    real = sum(weight.nbytes for weight in weights.parameters()) + constants
    for sizes in (shape_of(folder), model.shape_of_config(kind, folder)):
        assert memory.base_weights(sizes, settings, weights.dtype.itemsize) == pytest.approx(real, rel=0.05)


@pytest.mark.parametrize(
    "kind", ["mixtral", "qwen3_moe", "qwen2_moe", "deepseek_v3", "gemma3", "llama", "gpt_neox", "phi3", "gpt2", "qwen3_next"]
)
@pytest.mark.parametrize("again", ["yes", "no"])
@pytest.mark.parametrize("words", [[], ["lora.options.modules_to_save=[lm_head]"]], ids=["adapter", "modules_to_save"])
def test_the_fullest_moment_of_a_step_of_any_model_is_planned_on_the_laptop(kind, words, again, tiny, tmp_path, settings_for):
    """By torch's own count of a second step; the weights and what the optimizer remembers of them lie there before."""
    settings = settings_for(tmp_path, "quant=none", f"train.gradient_checkpointing={again}", "lora.r=2", *words)
    folder = like(kind, tiny, tmp_path)
    base = model.load(schema.Model(str(folder), "main", "", False), settings.quant)
    tuned = model.add_adapter(base, settings.lora, gradient_checkpointing=again == "yes").train()
    row = prompt.Example(None, [5] * 30, [7] * 10)
    (packed,) = packing.packs([row], None)
    learner = optimizer.build(tuned, settings.train)

    def step():
        model.loss(tuned, packed).backward()
        learner.step()
        learner.zero_grad()

    step()
    with counting() as counted:
        step()
    remembered = sum(value.nbytes for state in learner.state.values() for value in state.values() if torch.is_tensor(value))
    planned = memory.training_memory(shape_of(folder), settings, memory.ForwardPass(40, [40], 0, 10), base.model.dtype.itemsize)
    lying = remembered + sum(weight.nbytes for weight in [*tuned.parameters(), *tuned.buffers()])  # MiniMax keeps tables of decay
    assert sum(planned.values()) == pytest.approx(lying + most(counted), rel=0.1)


def like(kind: str, tiny: Path, place: Path) -> Path:
    """The folder of a small model of this class, with the tiny model's tokenizer."""
    folder = shutil.copytree(tiny, place / kind, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    architectures.small(kind).save_pretrained(folder)
    return folder


def check_plan(folder: Path, settings, rows: int) -> None:
    base = model.load(schema.Model(str(folder), "main", "", False), settings.quant)
    tuned = model.add_adapter(base, settings.lora, settings.train.gradient_checkpointing == "yes").train()
    model_shape = shape_of(folder)
    width = base.model.dtype.itemsize
    examples = [prompt.Prompt(base.tokenizer, base.stops).example(row) for row in read(TRAIN)[:rows]]
    for packed in packing.packs(examples, settings.train.pack_tokens):
        assert memory.saved_for_backward(model_shape, settings, planned_load(packed), width) == pytest.approx(
            counted(tuned, packed), rel=0.1
        )
    learner = optimizer.build(tuned, settings.train)
    assert memory.trainable_parameters(model_shape, settings.lora) == sum(
        weight.numel() for weight in tuned.parameters() if weight.requires_grad
    )
    stored = sum(weight.numel() * weight.element_size() for name, weight in tuned.named_parameters() if "lora_" not in name)
    states = [weight.quant_state for weight in tuned.parameters() if hasattr(weight, "quant_state")]
    constants = sum(state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0) for state in states)
    assert memory.base_weights(model_shape, settings.quant, width) == pytest.approx(stored + constants, rel=0.01)
    for weight in tuned.parameters():
        if weight.requires_grad:
            weight.grad = torch.ones_like(weight)
    learner.step()
    remembered = sum(
        value.numel() * value.element_size() for state in learner.state.values() for value in state.values() if torch.is_tensor(value)
    )
    assert memory.optimizer_bytes(settings.train) * memory.trainable_parameters(model_shape, settings.lora) == pytest.approx(
        remembered, rel=0.1
    )


@pytest.mark.parametrize(
    "words",
    [
        ["quant=none"],
        ["quant=nf4"],
        ["quant=nf4", "quant.double_quant=false"],
        ["quant=none", "train.gradient_checkpointing=true"],
        ["quant=none", "train.pack_tokens=null"],
        ["quant=none", "train.pack_tokens=900"],
        ["quant=none", "lora.targets=[q_proj,v_proj]"],
        ["quant=none", "lora=attention", "lora.r=4"],
        ["quant=none", "train.optimizer=torch.optim.SGD"],
    ],
    ids=lambda words: " ".join(words),
)
def test_the_tiny_model_keeps_the_bytes_that_were_planned(words, tiny, settings_for, tmp_path):
    check_plan(tiny, settings_for(tmp_path, *words), rows=4)


@pytest.mark.parametrize("words", [["quant=none"], ["quant=nf4", "train.gradient_checkpointing=true"]], ids=lambda words: " ".join(words))
@pytest.mark.skipif(not SMALL.exists(), reason="`make setup` makes SmolLM2-135M")
@pytest.mark.slow
def test_a_real_small_model_keeps_the_bytes_that_were_planned(words, settings_for, tmp_path):
    check_plan(SMALL, settings_for(tmp_path, *words), rows=2)


def eight(*words):
    """Llama-3.1-8B on the shipped task, as `inv plan -- experiment=medical_ie_8b` would plan it; 4,500 rows of 600 tokens."""
    row = prompt.Example(None, list(range(500)), list(range(100)))
    order = Sampler([WeightedRows([row] * 4500)], 17, 16)
    return lambda card: memory.make_plan(LLAMA_8B, load.load(["cloud=twin", "experiment=medical_ie_8b", *words]), order, [row] * 500, card)


def test_eight_billion_weights_take_hours_on_an_l4_and_less_on_faster_cards():
    plans = {card: eight()(f"NVIDIA {card}") for card in ("L4", "A10G", "L40S", "H100", "T4")}
    hours = {card: sum(one.seconds.values()) / 3600 for card, one in plans.items()}
    assert 1 < hours["L4"] < 24
    assert hours["H100"] < hours["L40S"] < hours["L4"] < hours["A10G"] < hours["T4"]
    assert 6e9 < plans["L4"].bytes < min(22e9, plans["T4"].bytes)  # without bf16 what is computed is twice as wide


def test_seconds_of_an_unknown_card_are_not_made_up():
    assert all(math.isnan(seconds) for seconds in eight()("NVIDIA Z1").seconds.values())


def example(length: int, learned: int, start: tuple[int, ...] = (1, 2, 3)) -> prompt.Example:
    own = 10 + length * 7919 + learned  # each row goes on in its own way
    prefix = [*start, *range(own, own + length - learned - len(start))]
    return prompt.Example(None, prefix, [9] * learned)


LONG_AMONG_SHORT = [example(2100, 60)] * 16 + [example(500 + n % 7, 40) for n in range(400)]
MIXED = [example(60 + 37 * n % 900, 20 + 13 * n % 40, (1, n % 3, 4)) for n in range(200)]
STRANGERS = [example(50 + n, 30, (n,)) for n in range(100)]


@pytest.mark.parametrize("rows", [LONG_AMONG_SHORT, MIXED, STRANGERS, MIXED[:5]], ids=["long among short", "mixed", "strangers", "few"])
@pytest.mark.parametrize("limit", [None, 300, 2048, 4096])
@pytest.mark.parametrize("processes", [1, 3])
def test_no_pack_of_any_step_needs_more_than_the_fullest_step_that_is_planned(rows, limit, processes, settings_for, tmp_path):
    settings = settings_for(tmp_path, f"train.pack_tokens={'null' if limit is None else limit}", "train.steps=null", "train.epochs=1.5")
    order = Sampler([WeightedRows(rows[:-3]), WeightedRows(rows[-3:], 4)], 17, 16)
    steps = order.total_steps(settings.train)
    bounds = memory.forward_passes(order, limit, steps)
    most = sum(memory.peak_memory(LLAMA_8B, settings, order, 2).values())
    for step in range(1, steps + 1):
        for process in range(processes):
            for packed in packing.packs(order.batch(step)[process::processes], limit):
                real = planned_load(packed)
                assert real.tokens <= max(bound.tokens for bound in bounds)
                assert real.supervised <= max(bound.supervised for bound in bounds)
                assert sum(memory.training_memory(LLAMA_8B, settings, real, 2).values()) <= most


def test_the_fullest_step_is_no_more_than_its_limit(settings_for, tmp_path):
    order = Sampler([WeightedRows(LONG_AMONG_SHORT)], 17, 16)
    tokens = [bound.tokens for bound in memory.forward_passes(order, 4096, 40)]
    assert 3900 < max(tokens) <= 4096


def test_the_planned_steps_are_those_of_the_loop_with_rows_that_are_visited_twice(tuned, examples, settings_for, tmp_path):
    settings = settings_for(tmp_path, "train.steps=null", "train.epochs=2", "train.batch_size=2", "train.report_to=[]")
    order = Sampler([WeightedRows(examples[:4]), WeightedRows(examples[4:], 2.5)], 17, 2)
    plan = memory.make_plan(LLAMA_8B, settings, order, examples[:1], None)
    assert plan.steps == 9, "four rows once, two rows twice and every other of them once more: nine an epoch, two epochs"
    progress = loop.train(tuned, order, examples[:1], settings, CheckpointStore(tmp_path, "x", 1), Record(tmp_path), ProcessGroup(), None)
    assert progress.step == plan.steps


@pytest.mark.parametrize(
    ("words", "part", "more"),
    [
        (["train.metric_for_best_model=macro_f1"], "measuring", lambda seconds, looks: looks * seconds["scoring"] / 2),
        (["publish.merged=true"], "scoring", lambda seconds, _: seconds["scoring"]),
        (["publish.merged=true", "quant=none"], "scoring", lambda seconds, _: seconds["scoring"] / 2),
        (["publish.merged=true", "publish.gguf=f16", "quant=none"], "scoring", lambda seconds, _: seconds["scoring"]),
    ],
    ids=["macro_f1", "merged", "merged without NF4", "GGUF"],
)
def test_all_that_is_generated_is_planned(words, part, more):
    plain, other = eight()("NVIDIA L4"), eight(*words)("NVIDIA L4")
    looks = math.ceil(plain.steps / 50)
    assert other.seconds[part] == pytest.approx(plain.seconds[part] + more(plain.seconds, looks))
    assert {name: value for name, value in other.seconds.items() if name != part} == {
        name: value for name, value in plain.seconds.items() if name != part
    }


LLAMA_8B_FILES = 16_060_556_376  # bytes of its weights on the Hub
ADAPTER_8B = 41_943_040  # weights of rank 16 in all linear layers


@pytest.mark.parametrize(
    ("words", "models", "checkpoints", "each"),
    [
        ([], 1, 5, 12),
        (["train.save_total_limit=10"], 1, 12, 12),
        (["publish.merged=true"], 3, 5, 12),
        (["publish.merged=true", "quant=none"], 2, 5, 12),
        (["publish.merged=true", "publish.gguf=f16", "quant=none"], 3, 5, 12),
        (["publish.merged=true", "publish.gguf=f16"], 3, 5, 12),
        (["train.optimizer=bitsandbytes.optim.AdamW8bit"], 1, 5, 6),
    ],
)
@pytest.mark.parametrize("rank", [16, 64])
def test_the_disk_has_room_for_every_model_and_checkpoint_that_lie_there_at_once(words, models, checkpoints, each, rank):
    run = load.load(["cloud=twin", "experiment=medical_ie_8b", f"lora.r={rank}", *words])
    adapter = ADAPTER_8B * rank // 16
    assert memory.trainable_parameters(LLAMA_8B, run.lora) == adapter
    assert memory.disk_bytes(LLAMA_8B, run, LLAMA_8B_FILES) == models * LLAMA_8B_FILES + checkpoints * adapter * each + 8 * adapter + 10**9
    assert memory.disk_bytes(None, run, LLAMA_8B_FILES) == pytest.approx((models + 0.3) * LLAMA_8B_FILES + 10**9, abs=1)
