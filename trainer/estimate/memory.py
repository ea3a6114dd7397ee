"""What a run will need, before anything is paid for: memory by what holds it, and time, from the model's numbers and the rows'.

Weights are counted from the model's own tensors, whatever its family. What a layer keeps is counted as PEFT's and transformers' own
code keeps it in a model like a Llama, and estimated from its matrices in others; tests compare the count with what is allocated.
Seconds follow from multiplications to do and a rate that is assumed, and said to be.
"""

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache

from conf import schema
from trainer.estimate.shape import Layer, Matrix, Shape
from trainer.rows.sampler import Order, beginning

NF4_DOUBLE, NF4_SINGLE = 0.5 + 1 / 64 + 4 / (64 * 256), 0.5 + 4 / 64  # bytes a weight; one constant for 64 weights
MOMENTS = {"SGD": 0, "RMSprop": 4, "Adagrad": 4, "Lion": 4, "Lion8bit": 1, "PagedLion8bit": 1}  # bytes a weight; Adam has two moments
LOGITS = 12  # bytes, counted: logarithms of probabilities, and gradients of them and of the logits, in fp32 also where bf16 is computed
CHOICE = 8  # bytes of a logit beside itself where the next token is chosen: a copy in fp32, and that of the token before
LOGS, UNKNOWN = 10**9, 0.3  # bytes of all that is not weights; of the base model's size, an adapter whose size is not known
RESERVE = 0.08  # of the card: the CUDA context, and what the allocator cannot use

# Dense bf16 multiplications and additions a second that the maker states, in units of 1e12, by the device's name at AWS.
PEAK = {"L4": 121, "A10G": 70, "L40S": 362, "A100": 312, "H100": 989, "H200": 989, "T4": 8.1}  # T4 in fp32: it has no bf16
SHARE = 0.4  # of it that training reaches: published runs say 0.41 and 0.47 (H100, RTX 4090); not measured on these boxes
# On a GPU the host must start every kernel. For 8B models 0.25 to 0.4 s a small forward and backward pass are published: 32 layers.
PASS, TOKEN = 0.01, 0.001  # seconds a layer: to train on a pack at least, and to generate a token for a batch
CPU = 0.08  # 1e12 a second that two CPU cores reach (BENCHMARKS.md: SmolLM2-135M at 138 to 243 tokens a second; this is 190)


@dataclass(frozen=True)
class Load:
    """The tokens of one forward and backward pass."""

    tokens: int  # computed
    rows: list[int]  # tokens of each row without the beginning they share
    shared: int  # tokens of that beginning
    supervised: int


@dataclass(frozen=True)
class Plan:
    memory: dict[str, int]  # bytes, by what holds them
    seconds: dict[str, float]  # by what is done
    steps: int
    assumed: str  # what the seconds rest on
    scoring: dict[str, int]  # bytes at the fullest moment of scoring, by what holds them
    eval_batch_size: int  # rows scored at once
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(self.memory.values())


def base(model: Shape, quant: schema.Quant, width: int) -> int:
    """Bytes of the frozen weights; `width` is that of a number that is not quantised."""
    if model.stored is not None:
        return model.stored + model.plain * width
    nf4 = quant.kind is schema.Quantisation.nf4
    each = (NF4_DOUBLE if quant.double_quant else NF4_SINGLE) if nf4 else width
    return math.ceil(model.quantised * each) + model.plain * width


def learned(model: Shape, lora: schema.Lora) -> int:
    """How many weights the adapter has."""
    return sum(count * _learned(model, layer, lora) for layer, count in model.kinds) + _tables(model, lora)


def _learned(model: Shape, layer: Layer, lora: schema.Lora) -> int:
    chosen = _chosen(model, layer, lora)
    magnitudes = sum(one.outputs for one in chosen) if lora.options.get("use_dora") else 0
    into, out = _experts(model, lora)  # two matrices lie in one, which has twice the rank
    experts = into * 2 * (model.hidden + 2 * layer.expert_inner) + out * (layer.expert_inner + model.hidden)
    return lora.r * (sum(one.inputs + one.outputs for one in chosen) + layer.experts * experts) + magnitudes


def _chosen(model: Shape, layer: Layer, lora: schema.Lora) -> list[Matrix]:
    """The matrices of a layer that get an adapter."""
    each = [one for one in layer.linear if one.name not in model.expert_names]
    return [one for one in each if (layer.reads and one.reached if lora.targets == "all-linear" else one.name in lora.targets)]


def _experts(model: Shape, lora: schema.Lora) -> tuple[bool, bool]:
    """Whether the adapter changes what goes into experts, and what leaves them; PEFT merges it into all of a layer's for each pass."""
    *into, out = model.expert_names or (None,)
    return (bool(into), bool(out)) if lora.targets == "all-linear" else (bool({*into} & {*lora.targets}), out in lora.targets)


def _tables(model: Shape, lora: schema.Lora) -> int:
    """How many weights of embedding and head learn, and of matrices that are trained whole, as `lora.options` says."""
    whole, tokens = lora.options.get("modules_to_save") or [], lora.options.get("trainable_token_indices") or {}
    table = model.vocabulary * model.hidden
    matrices = sum(count * one.inputs * one.outputs for layer, count in model.kinds for one in layer.linear if one.name in whole)
    rows = len(tokens) if isinstance(tokens, list) else sum(map(len, tokens.values()))
    beside = sum(name in model.tables for name in lora.targets) if isinstance(lora.targets, list) else 0
    return (
        sum(name in model.tables for name in whole) * table
        + matrices
        + rows * model.hidden
        + beside * lora.r * (model.vocabulary + model.hidden)
    )


def disk(model: Shape | None, settings: schema.Recipe, weights: int) -> int:
    """Bytes of the volume that a run takes at its fullest, its base model's `weights` as they are downloaded among them."""
    whole = (1 + merged_forms(settings)) * weights  # every merged form lies there until all are scored
    if model is None:
        return whole + math.ceil(UNKNOWN * weights) + LOGS
    adapter = learned(model, settings.lora)
    checkpoint = adapter * (4 + moments(settings.train))
    # The newest, the best, and the one that is being written; the adapter that is shipped may have twice the rank.
    return whole + (settings.train.save_total_limit + 2) * checkpoint + 2 * 4 * adapter + LOGS


def moments(train: schema.Train) -> int:
    """Bytes that the optimizer remembers of a weight."""
    name = train.optimizer.rpartition(".")[2]
    return MOMENTS.get(name, 2 if "8bit" in name else 8)


def activations(model: Shape, layer: Layer, lora: schema.Lora, load: Load, width: int, nf4: bool) -> int:
    """Bytes that a layer keeps for its backward pass; `width` is that of a number as it is computed."""
    tokens, hidden, chosen = load.tokens, model.hidden, _chosen(model, layer, lora)
    # An adapter's A keeps its input. Where the base is plain and computed in bf16, PEFT converts the input for each A anew.
    inputs = [(one.block, one.leaves, one.inputs) for one in chosen]
    kept = sum(size for *_, size in (inputs if width == 2 and not nf4 else set(inputs)))
    kept += lora.r * len(chosen)  # what each A gives
    # What enters attention or an MLP is kept as it is multiplied there, and what leaves it as it was before.
    kept += sum(one.inputs if one.leaves else one.outputs for one in layer.linear)
    kept += model.active * (2 * hidden + 4 * layer.expert_inner) if layer.experts else 0
    into, out = _experts(model, lora)
    merged = layer.expert_numbers * (2 * into + out) // 3  # what leaves experts is a third of them
    # Rows that share a beginning each keep the keys and values of it and of themselves, for every query head.
    spread = 2 * model.queries * (sum(load.rows) + load.shared * len(load.rows)) if load.shared else 0
    norms = tokens * (2 * hidden * (4 if width == 2 else width) + 8 + 4 * model.heads)  # two norms, in fp32; attention's sums
    return width * (tokens * kept + spread + merged) + norms


def masks(load: Load, width: int) -> int:
    """Bytes of who sees whom where rows share a beginning; all layers use the same."""
    return width * sum(row * (row + load.shared) for row in load.rows) if load.shared else 0


def memory(model: Shape, settings: schema.Recipe, load: Load, width: int) -> dict[str, int]:
    """Bytes at the fullest moment of a step, by what holds them."""
    nf4 = settings.quant.kind is schema.Quantisation.nf4
    weights = learned(model, settings.lora)
    each = [(activations(model, layer, settings.lora, load, width, nf4), count) for layer, count in model.reading]
    stream = load.tokens * model.hidden * width
    recomputed = model.layers * stream + max(size for size, _ in each)
    kept = recomputed if settings.train.gradient_checkpointing == "yes" else sum(size * count for size, count in each)
    into, out = _experts(model, settings.lora)  # the gradient of what is merged into one layer's, one matrix after the other
    experts = max(layer.expert_numbers for layer, _ in model.kinds) * (2 if into else out) // 3
    return {
        "base weights": base(model, settings.quant, width),
        "adapter": 4 * weights,
        "gradients": 4 * weights,
        "optimizer": moments(settings.train) * weights,
        "activations": kept + masks(load, width),
        "logits": load.supervised * model.vocabulary * LOGITS,
        "workspace": width * (experts + model.widest * nf4 + 3 * load.tokens * model.inner),  # one unpacked matrix; one MLP's gradients
    }


def scoring(model: Shape, settings: schema.Recipe, held_out: list, width: int) -> dict[str, int]:
    """Bytes at the fullest moment of scoring the batch with the longest prompt, by what holds them.

    Either the last layer reads the prompts, or the last token is chosen. Gradients of the last step still lie there.
    """
    rows, read = min(settings.train.eval_batch_size, len(held_out)), max((len(example.prompt) for example in held_out), default=0)
    weights, written = learned(model, settings.lora), read + settings.data.max_new_tokens
    held = {"base weights": base(model, settings.quant, width), "adapter": 4 * weights, "gradients": 4 * weights}
    if settings.train.metric_for_best_model is schema.BestMetric.macro_f1:  # scored between steps
        held["optimizer"] = moments(settings.train) * weights
    if settings.publish.merged:  # its weights are not quantised; with the adapter on them before they are merged
        held["base weights"] = base(model, schema.Quant(schema.Quantisation.none, False), width)
    unpacked = width * model.widest * (settings.quant.kind is schema.Quantisation.nf4)
    token = 2 * model.layers * model.keys * width  # keys and values of all layers
    reading = {"keys and values": rows * read * token, "workspace": unpacked + rows * read * _passing(model, settings.lora, read, width)}
    writing = {
        "keys and values": rows * written * (token + model.keys * width),  # one layer's keys or values are copied to grow
        "logits": rows * model.vocabulary * (width + CHOICE),
        "workspace": unpacked,
    }
    return held | max(reading, writing, key=lambda parts: sum(parts.values()))


def _passing(model: Shape, lora: schema.Lora, read: int, width: int) -> int:
    """Bytes a token while a layer reads a prompt of `read` tokens without gradients: in its MLP or in its attention."""
    adapted = lora.targets == "all-linear" or bool({"gate_proj", "up_proj"} & set(lora.targets))
    mlp = width * ((3 + adapted) * model.inner + 5 * model.hidden) + read  # the mask has a byte for each token seen
    attention = width * (4 * model.hidden + 4 * model.queries) + read * (1 + 2 * width)  # as numbers, and aligned
    return max(mlp, attention)


def saved(model: Shape, settings: schema.Recipe, load: Load, width: int) -> int:
    """Bytes that autograd holds when the loss is known and nothing has gone backward: what a test can count."""
    nf4 = settings.quant.kind is schema.Quantisation.nf4
    logits = 4 * load.supervised * model.vocabulary
    if settings.train.gradient_checkpointing == "yes":
        return (model.layers + 1) * load.tokens * model.hidden * width + logits
    kept = sum(count * activations(model, layer, settings.lora, load, width, nf4) for layer, count in model.reading)
    return kept + masks(load, width) + logits


def work(model: Shape, settings: schema.Recipe, tokens: int, supervised: int) -> float:
    """Multiplications and additions to train on so many tokens: 4 for each frozen weight, 6 where it is computed again."""
    times = 6 if settings.train.gradient_checkpointing == "yes" else 4
    adapter = 6 * learned(model, settings.lora)
    return times * tokens * model.multiplied + adapter * tokens + 4 * supervised * model.vocabulary * model.hidden


def utilisation(
    model: Shape | None, settings: schema.Recipe, tokens: int, supervised: int, seconds: float, gpu: str | None, cards: int
) -> float | None:
    """MFU: the share of the maker's figure that training on these tokens reached; None where the card or the model is not known.

    Real tokens, 4 operations for a frozen weight, 6 for one of the adapter, 4 for the head where there is loss: what is computed
    again to save memory does not count.
    """
    most = gpu and model and peak(gpu)
    if not most:
        return None
    plain = replace(settings, train=replace(settings.train, gradient_checkpointing="no"))
    return work(model, plain, tokens, supervised) / seconds / (most * 1e12 * cards)


def peak(gpu: str) -> float | None:
    """The maker's figure for a card, in 1e12 operations a second."""
    return next((value for name, value in PEAK.items() if name in words(gpu)), None)


def rate(gpu: str | None) -> tuple[float, str]:
    """Multiplications and additions a second to count on, and where that figure is from."""
    if gpu is None:
        return CPU * 1e12, f"{CPU * 1000:.0f} GFLOP/s, as two CPU cores did (BENCHMARKS.md)"
    most = peak(gpu)
    if most is None:
        return 0.0, f"the speed of {gpu} is not known"
    return most * SHARE * 1e12, f"{SHARE:.0%} of the {most} TFLOP/s that {gpu}'s maker states: an assumption, not measured"


def words(gpu: str) -> list[str]:
    """The words of a card's name: NVIDIA L4, NVIDIA H100 80GB HBM3, NVIDIA A100-SXM4-40GB."""
    return gpu.replace("-", " ").split()


@lru_cache(maxsize=16)  # settings are tried one after the other, on one card after the other
def loads(order: Order, limit: int | None, steps: int) -> list[Load]:
    """For each step what none of its forward passes exceeds, however its rows are shared among packs of `limit` and processes."""
    return [load for step in range(1, steps + 1) for load in _loads(order.step(step), limit or 0)]


def _loads(rows: list, limit: int) -> list[Load]:
    longest = max(rows, key=len)
    alone = Load(len(longest), [len(longest)], 0, max(row.learned for row in rows))
    fitting = sorted((row for row in rows if len(row) <= limit), key=len, reverse=True)
    if len(fitting) < 2 or len(fitting[-2]) + len(fitting[-1]) > limit:
        return [alone]
    return [_together(fitting, limit), *[alone] * (len(longest) > limit)]


def _together(rows: list, limit: int) -> Load:
    """What no pack of some of these rows exceeds, longest first: one of the longest of them, the last cut at the limit."""
    taken, room = [], limit
    for row in rows:
        taken.append(min(len(row), room))
        room -= taken[-1]
        if not room:
            break
    saved = beginning(rows)
    computed = max(sum(taken[:count]) - saved * (count - 1) for count in range(1, len(taken) + 1))
    first = [row.prompt[0] for row in rows]
    shared = max(saved, int(len(set(first)) < len(first)))  # some of the rows may share what not all do
    return Load(computed, [max(length - shared, 0) for length in taken], shared, _most_supervised(rows, limit))


def _most_supervised(rows: list, limit: int) -> int:
    """Tokens with loss among `limit` tokens of these rows, those first of which most have loss."""
    found = 0.0
    for row in sorted(rows, key=lambda row: row.learned / len(row), reverse=True):
        found += row.learned * min(1, limit / len(row))
        limit -= min(limit, len(row))
    return math.ceil(found)


def fullest(model: Shape, settings: schema.Recipe, order: Order, width: int) -> dict[str, int]:
    """Bytes at the fullest moment of all steps, by what holds them."""
    train = settings.train
    steps = loads(order, train.pack_tokens, order.steps(train))
    return max((memory(model, settings, load, width) for load in steps), key=lambda parts: sum(parts.values()))


def number_width(gpu: str | None) -> int:
    """Bytes of a number as it is computed, by the device's name at AWS; a CPU mostly has no bf16 of its own."""
    return 4 if gpu is None or {"T4", "V100"} & set(words(gpu)) else 2


def make(model: Shape, settings: schema.Recipe, order: Order, held_out: list, gpu: str | None, each: int | None = None) -> Plan:
    """The plan for these rows, in tokens, on this device; `each` are the bytes of a number where they are known."""
    train = settings.train
    steps = order.steps(train)
    visits = [example for step in range(1, steps + 1) for example in order.step(step)]
    speed, source = rate(gpu)
    looks = math.ceil(steps / train.eval_steps)  # besides the one before the first step
    scored = sum(map(len, held_out))
    batches = math.ceil(len(held_out) / train.eval_batch_size)
    answers = _at_least(_reading(model, scored), speed, batches * settings.data.max_new_tokens * TOKEN * model.layers, gpu)
    glance = _at_least(2 * model.multiplied * scored, speed, PASS * model.layers / 3, gpu)
    operations = work(model, settings, sum(map(len, visits)), sum(example.learned for example in visits))
    seconds = {
        "training": _at_least(operations, speed, steps * PASS * model.layers, gpu),
        "measuring": (1 + looks) * glance + looks * answers * (train.metric_for_best_model is schema.BestMetric.macro_f1),
        "scoring": (2 + merged_forms(settings)) * answers,  # of the base model, of the tuned one, and of what is merged
    }
    if train.max_hours:
        seconds["training"] = min(seconds["training"], train.max_hours * 3600)
    width = each or number_width(gpu)
    needed, generating = fullest(model, settings, order, width), scoring(model, settings, held_out, width)
    return Plan(needed, seconds, steps, source, generating, train.eval_batch_size, _notes(settings, steps))


def merged_forms(settings: schema.Recipe) -> int:
    """How many merged models are made and scored: an NF4 base can be merged in two ways."""
    return settings.publish.merged * (2 if settings.quant.kind is schema.Quantisation.nf4 else 1)


def _at_least(operations: float, speed: float, least: float, gpu: str | None) -> float:
    if not speed:
        return math.nan
    return max(operations / speed, least) if gpu else operations / speed


def _reading(model: Shape, tokens: int) -> float:
    """Operations to read prompts and write answers of so many tokens."""
    return 2.0 * tokens * (model.multiplied + model.vocabulary * model.hidden)


def _notes(settings: schema.Recipe, steps: int) -> list[str]:
    """What in the settings does not fit the number of steps."""
    train, notes = settings.train, []
    if train.eval_steps > steps:
        notes.append(f"train.eval_steps={train.eval_steps} is more than all {steps} steps: it is measured at the end only")
    if train.save_steps > steps:
        notes.append(f"train.save_steps={train.save_steps} is more than all {steps} steps: what is killed before the end starts anew")
    if train.warmup_steps is not None and train.warmup_steps >= steps:
        notes.append(f"train.warmup_steps={train.warmup_steps} is not less than all {steps} steps: the learning rate never comes down")
    patience = train.early_stopping_patience
    if patience is not None and patience * train.eval_steps >= steps:
        took = f"train.early_stopping_patience={patience} measurements take {patience * train.eval_steps} steps"
        notes.append(f"{took}: it never stops early")
    return notes
