"""What a run will need, before anything is paid for: memory by purpose, and time, from the sizes of model and rows.

Weights are counted from the model's own tensors, whatever its family. Activations follow from its matrices, as PEFT and transformers save
their inputs and outputs, and from a table of what each architecture keeps besides; tests compare them with allocations.
Seconds follow from the operations and an assumed rate; the plan says that it is assumed.
"""

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache

from conf import schema
from trainer.estimate.shape import Layer, Matrix, Shape
from trainer.rows.sampler import Sampler, common_prefix_length

NF4_DOUBLE, NF4_SINGLE = 0.5 + 1 / 64 + 4 / (64 * 256), 0.5 + 4 / 64  # bytes a weight; one constant for 64 weights
MOMENTS = {
    "SGD": 0,
    "RMSprop": 4,
    "Adagrad": 4,
    "Lion": 4,
    "Lion8bit": 1,
    "PagedLion8bit": 1,
}  # bytes a weight, by optimizer; Adam has two moments
LOGITS = 12  # bytes, counted: logarithms of probabilities, and gradients of them and of the logits, in fp32 also where bf16 is computed
# A GPU's chunked loss (trainer/model/chunked_loss.py) takes less; it has not run on one, so no plan counts on it.
CHOICE = 8  # extra bytes of a logit in generation: a copy in fp32, and that of the previous token
GGUF = {None: 0.0, schema.Gguf.f16: 2.0, schema.Gguf.q8_0: 1 + 34 / 64}  # a merged model and its file, as a share of the 16-bit weights
LOGS, UNKNOWN = 10**9, 0.3  # bytes of logs and reports; share of the base model's size, for an adapter of unknown size
WHOLE = 0.5  # attention matrices a layer keeps at the least where it computes any; less comes from masks
RESERVE = 0.08  # of the card: the CUDA context, and what the allocator cannot use

# Dense bf16 TFLOP/s that the maker states, by the device's name at AWS.
PEAK_FLOPS = {"L4": 121, "A10G": 70, "L40S": 362, "A100": 312, "H100": 989, "H200": 989, "T4": 8.1}  # T4 in fp32: it has no bf16
# GB a second that a card gets from the others: NVLink of p4d and p5 at about a third of what is stated, PCIe through the host elsewhere.
EXCHANGE = {"A100": 200, "H100": 300, "H200": 300, "PCIe": 8}  # assumed, not measured
ASSUMED_MFU = 0.4  # of it that training reaches: published runs reach 0.41 and 0.47 (H100, RTX 4090); not measured on these boxes
# On a GPU the host must start every kernel. For 8B models 0.25 to 0.4 s a small forward and backward pass are published: 32 layers.
PASS, TOKEN = 0.01, 0.001  # seconds a layer: to train on a pack at least, and to generate a token for a batch
CPU = 0.08  # 1e12 a second that two CPU cores reach (BENCHMARKS.md: SmolLM2-135M at 138 to 243 tokens a second; this is 190)


@dataclass(frozen=True)
class ForwardPass:
    """The tokens of one forward and backward pass."""

    tokens: int  # computed
    rows: list[int]  # tokens of each row without the beginning they share
    shared: int  # tokens of that beginning
    supervised: int


@dataclass(frozen=True)
class Plan:
    memory: dict[str, int]  # bytes, by purpose
    seconds: dict[str, float]  # by stage
    steps: int
    assumed: str  # how the seconds were estimated
    scoring: dict[str, int]  # peak bytes of scoring, by purpose
    eval_batch_size: int  # rows scored at once
    visits: str  # how many of the rows the steps visit, in words
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(self.memory.values())


def base_weights(model: Shape, quant: schema.Quant, width: int) -> int:
    """Bytes of the frozen weights; `width` is that of a number that is not quantised."""
    if model.stored is not None:
        return model.stored + model.plain * width
    nf4 = quant.kind is schema.Quantisation.nf4
    weight_bytes = (NF4_DOUBLE if quant.double_quant else NF4_SINGLE) if nf4 else width
    return math.ceil(model.quantised * weight_bytes) + model.plain * width


def held_weights(model: Shape, settings: schema.Recipe, width: int, cards: int) -> dict[str, int]:
    """Bytes of the frozen weights on a card, by purpose; with `train.fsdp` each card holds a part, and gathers for a while what is whole.

    That is the layer that computes, the next one, and all that is in no layer. The constants of 4-bit weights are never cut.
    """
    base = base_weights(model, settings.quant, width)
    if settings.train.fsdp != "yes":
        return {"base weights": base}
    nf4 = settings.quant.kind is schema.Quantisation.nf4
    weight_bytes = base_weights(replace(model, quantised=1 << 20, plain=0), settings.quant, width) / (1 << 20)
    linear = {layer: sum(matrix.inputs * matrix.outputs for matrix in layer.linear) for layer, _ in model.kinds}
    layers = {layer: linear[layer] * weight_bytes + layer.expert_numbers * width for layer in linear}
    constants = sum(linear[layer] * count for layer, count in model.kinds) * (weight_bytes - 0.5) * nf4
    outside = base - sum(layers[layer] * count for layer, count in model.kinds)
    return {
        "base weights": math.ceil((base - constants) / cards + constants),
        "gathered weights": math.ceil(2 * max(layers.values()) + max(outside, 0)),
    }


def trainable_parameters(model: Shape, lora: schema.Lora) -> int:
    """How many weights the adapter has."""
    return sum(count * _layer_parameters(model, layer, lora) for layer, count in model.kinds) + _table_parameters(model, lora)


def _layer_parameters(model: Shape, layer: Layer, lora: schema.Lora) -> int:
    chosen = _adapted(model, layer, lora)
    magnitudes = sum(matrix.outputs for matrix in chosen) if lora.options.get("use_dora") else 0
    into, out = _adapted_experts(model, lora)  # gate and up share one tensor, which has twice the rank
    experts = into * 2 * (model.hidden + 2 * layer.expert_inner) + out * (layer.expert_inner + model.hidden)
    return lora.r * (sum(matrix.inputs + matrix.outputs for matrix in chosen) + layer.experts * experts) + magnitudes


def _adapted(model: Shape, layer: Layer, lora: schema.Lora) -> list[Matrix]:
    """The matrices of a layer that get an adapter."""
    each = [matrix for matrix in layer.linear if matrix.name not in model.expert_names]
    return [matrix for matrix in each if (layer.reads and matrix.reached if lora.targets == "all-linear" else matrix.name in lora.targets)]


def _adapted_experts(model: Shape, lora: schema.Lora) -> tuple[bool, bool]:
    """Whether the adapter changes the experts' input matrices, and their output; PEFT merges it into all of a layer's in each pass."""
    *into, out = model.expert_names or (None,)
    return (bool(into), bool(out)) if lora.targets == "all-linear" else (bool({*into} & {*lora.targets}), out in lora.targets)


def _table_parameters(model: Shape, lora: schema.Lora) -> int:
    """How many weights of embedding, head and fully trained matrices are trained, as `lora.options` says."""
    whole, tokens = lora.options.get("modules_to_save") or [], lora.options.get("trainable_token_indices") or {}
    table = model.vocabulary * model.hidden
    matrices = sum(
        count * matrix.inputs * matrix.outputs for layer, count in model.kinds for matrix in layer.linear if matrix.name in whole
    )
    rows = len(tokens) if isinstance(tokens, list) else sum(map(len, tokens.values()))
    beside = sum(name in model.tables for name in lora.targets) if isinstance(lora.targets, list) else 0
    return (
        sum(name in model.tables for name in whole) * table
        + matrices
        + rows * model.hidden
        + beside * lora.r * (model.vocabulary + model.hidden)
    )


def disk_bytes(model: Shape | None, settings: schema.Recipe, weights: int) -> int:
    """Peak bytes that a run takes on the volume, with the base model's downloaded `weights`."""
    # Every merged form is on disk until all are scored; then the best one, and its GGUF file.
    whole = math.ceil((1 + max(merged_forms(settings), GGUF[settings.publish.gguf])) * weights)
    if model is None:
        return whole + math.ceil(UNKNOWN * weights) + LOGS
    adapter = trainable_parameters(model, settings.lora)
    checkpoint = adapter * (4 + optimizer_bytes(settings.train))
    # The newest, the best, and the one that is being written; the exported adapter may have twice the rank.
    return whole + (settings.train.save_total_limit + 2) * checkpoint + 2 * 4 * adapter + LOGS


def optimizer_bytes(train: schema.Train) -> int:
    """Bytes of the optimizer's state for a weight."""
    name = train.optimizer.rpartition(".")[2]
    return MOMENTS.get(name, 2 if "8bit" in name else 8)


def activations(model: Shape, layer: Layer, lora: schema.Lora, step: ForwardPass, width: int, nf4: bool) -> int:
    """Bytes that a layer saves for its backward pass; `width` is the size of a number in the format of computation."""
    tokens, hidden, chosen = step.tokens, model.hidden, _adapted(model, layer, lora)
    # An adapter's A saves its input. Where the base is plain and computed in bf16, PEFT converts the input for each A again.
    inputs = [(matrix.block, matrix.leaves, matrix.inputs) for matrix in chosen]
    saved = sum(size for *_, size in (inputs if width == 2 and not nf4 else set(inputs)))
    saved += lora.r * len(chosen)  # the output of each A
    # Inputs of attention and of an MLP are saved as they are multiplied there, outputs as they were before.
    saved += sum(matrix.inputs if matrix.leaves else matrix.outputs for matrix in layer.linear)
    saved += model.active * (2 * hidden + 4 * layer.expert_inner) if layer.experts else 0
    into, out = _adapted_experts(model, lora)
    merged = layer.expert_numbers * (2 * into + out) // 3  # the output matrix is a third of them
    # Rows that share a beginning each save the keys and values of it and of themselves, for every query head.
    spread = 2 * model.queries * (sum(step.rows) + step.shared * len(step.rows)) if step.shared else 0
    norms = tokens * (2 * hidden * (4 if width == 2 else width) + 8 + 4 * model.heads)  # two norms in fp32; attention's log-sum-exp
    copies = _layer_parameters(model, layer, lora) if width == 2 else 0  # of the adapter, whose own weights are in fp32
    more = model.activations.beyond(width)
    beyond = tokens * (more.hidden * hidden + more.inner * model.inner) + more.attention * _attention_numbers(model, step)
    return math.ceil(width * max(tokens * saved + spread + merged + copies + beyond, 0) + norms)


def _attention_numbers(model: Shape, step: ForwardPass) -> int:
    """Numbers of a layer's attention matrices, in the classes that compute them."""
    return model.heads * (sum(row * (row + step.shared) for row in step.rows) + step.shared**2)


def masks(step: ForwardPass, width: int) -> int:
    """Bytes of the attention masks where rows share a beginning; all layers use the same."""
    return width * sum(row * (row + step.shared) for row in step.rows) if step.shared else 0


def training_memory(model: Shape, settings: schema.Recipe, step: ForwardPass, width: int, cards: int = 1) -> dict[str, int]:
    """Peak bytes of a step, by purpose: where the loss is computed, or in the backward pass of a layer."""
    nf4 = settings.quant.kind is schema.Quantisation.nf4
    weights = trainable_parameters(model, settings.lora)
    layer_bytes = [(activations(model, layer, settings.lora, step, width, nf4), count) for layer, count in model.reading]
    again = settings.train.gradient_checkpointing == "yes"
    kept = model.layers * step.tokens * model.hidden * width if again else sum(size * count for size, count in layer_bytes)
    kept += masks(step, width)
    into, out = _adapted_experts(model, settings.lora)  # the gradient of one layer's merged experts, one matrix after the other
    experts = max(layer.expert_numbers for layer, _ in model.kinds) * (2 if into else out) // 3
    static = {
        **held_weights(model, settings, width, cards),
        "adapter": 4 * weights,
        "gradients": 4 * weights,
        "optimizer": optimizer_bytes(settings.train) * weights,
    }
    loss = {"activations": kept, "logits": step.supervised * model.vocabulary * LOGITS}
    matrices = _attention_numbers(model, step) * (model.activations.beyond(width).attention >= WHOLE)  # and two gradients of them
    backward = {
        "activations": kept + again * max(size for size, _ in layer_bytes),  # one layer's are computed again
        # One unpacked matrix; one MLP's gradients, or those of one attention.
        "workspace": width * (experts + model.widest * nf4 + max(3 * step.tokens * model.inner, 2 * matrices)),
    }
    fullest = max(loss, backward, key=lambda parts: sum(parts.values()))
    return static | {purpose: math.ceil(model.activations.margin * size) for purpose, size in fullest.items()}


def scoring_memory(model: Shape, settings: schema.Recipe, held_out: list, width: int, cards: int = 1) -> dict[str, int]:
    """Peak bytes of scoring the batch with the longest prompt, by purpose.

    The peak is in the last layer's prefill, or at the last token. Gradients of the last step are still allocated.
    """
    rows, read = min(settings.train.eval_batch_size, len(held_out)), max((len(example.prompt) for example in held_out), default=0)
    weights, written = trainable_parameters(model, settings.lora), read + settings.data.answer_limit
    static = {**held_weights(model, settings, width, cards), "adapter": 4 * weights, "gradients": 4 * weights}
    if settings.train.metric_for_best_model is schema.BestMetric.macro_f1:  # scored between steps
        static["optimizer"] = optimizer_bytes(settings.train) * weights
    if settings.publish.merged:  # its weights are not quantised; with the adapter on them before they are merged
        static["base weights"] = base_weights(model, schema.Quant(schema.Quantisation.none, False), width)
    unpacked = width * model.widest * (settings.quant.kind is schema.Quantisation.nf4)
    token = 2 * model.layers * model.keys * width  # keys and values of all layers
    reading = {
        "keys and values": rows * read * token,
        "workspace": unpacked + rows * read * _prefill_bytes(model, settings.lora, read, width),
    }
    writing = {
        "keys and values": rows * written * (token + model.keys * width),  # one layer's keys or values are copied to grow
        "logits": rows * model.vocabulary * (width + CHOICE),
        "workspace": unpacked,
    }
    return static | max(reading, writing, key=lambda parts: sum(parts.values()))


def _prefill_bytes(model: Shape, lora: schema.Lora, read: int, width: int) -> int:
    """Bytes a token in a layer's prefill of `read` tokens without gradients: the larger of MLP and attention."""
    adapted = lora.targets == "all-linear" or bool({"gate_proj", "up_proj"} & set(lora.targets))
    mlp = width * ((3 + adapted) * model.inner + 5 * model.hidden) + read  # the mask has a byte for each token seen
    attention = width * (4 * model.hidden + 4 * model.queries) + read * (1 + 2 * width)  # as numbers, and aligned
    return max(mlp, attention)


def saved_for_backward(model: Shape, settings: schema.Recipe, step: ForwardPass, width: int) -> int:
    """Bytes that autograd holds between forward and backward: what a test can count."""
    nf4 = settings.quant.kind is schema.Quantisation.nf4
    logits = 4 * step.supervised * model.vocabulary
    if settings.train.gradient_checkpointing == "yes":
        return (model.layers + 1) * step.tokens * model.hidden * width + logits
    saved = sum(count * activations(model, layer, settings.lora, step, width, nf4) for layer, count in model.reading)
    return saved + masks(step, width) + logits


def flops(model: Shape, settings: schema.Recipe, tokens: int, supervised: int) -> float:
    """Floating-point operations to train on `tokens` tokens: 4 for each frozen weight, 6 where activations are computed again."""
    times = 6 if settings.train.gradient_checkpointing == "yes" else 4
    adapter = 6 * trainable_parameters(model, settings.lora)
    return times * tokens * model.multiplied + adapter * tokens + 4 * supervised * model.vocabulary * model.hidden


def mfu(
    model: Shape | None, settings: schema.Recipe, tokens: int, supervised: int, seconds: float, gpu: str | None, cards: int
) -> float | None:
    """MFU: the share of the maker's figure that training on these tokens reached; None where the card or the model is not known.

    Real tokens, 4 operations for a frozen weight, 6 for one of the adapter, 4 for the head where there is loss: what is computed
    again to save memory does not count.
    """
    most = peak_flops(gpu) if gpu else None
    if model is None or not most:
        return None
    plain = replace(settings, train=replace(settings.train, gradient_checkpointing="no"))
    return flops(model, plain, tokens, supervised) / seconds / (most * 1e12 * cards)


def peak_flops(gpu: str) -> float | None:
    """The maker's figure for a card, in TFLOP/s; None where it is not known."""
    return next((value for name, value in PEAK_FLOPS.items() if name in name_words(gpu)), None)


def assumed_flops(gpu: str | None) -> tuple[float, str]:
    """FLOP/s to plan with, and the source of the figure."""
    if gpu is None:
        return CPU * 1e12, f"{CPU * 1000:.0f} GFLOP/s, as two CPU cores did (BENCHMARKS.md)"
    most = peak_flops(gpu)
    if most is None:
        return 0.0, f"the speed of {gpu} is not known"
    return most * ASSUMED_MFU * 1e12, f"{ASSUMED_MFU:.0%} of the {most} TFLOP/s that {gpu}'s maker states: an assumption, not measured"


def name_words(gpu: str) -> list[str]:
    """The words of a card's name: NVIDIA L4, NVIDIA H100 80GB HBM3, NVIDIA A100-SXM4-40GB."""
    return gpu.replace("-", " ").split()


@lru_cache(maxsize=16)  # settings are tried one after the other, on one card after the other
def forward_passes(sampler: Sampler, limit: int | None, steps: int) -> list[ForwardPass]:
    """An upper bound of each step's forward passes, however its rows are split into packs of `limit` tokens and over processes."""
    return [load for step in range(1, steps + 1) for load in _loads(sampler.batch(step), limit or 0)]


def _loads(rows: list, limit: int) -> list[ForwardPass]:
    longest = max(rows, key=len)
    alone = ForwardPass(len(longest), [len(longest)], 0, max(row.learned for row in rows))
    fitting = sorted((row for row in rows if len(row) <= limit), key=len, reverse=True)
    if len(fitting) < 2 or len(fitting[-2]) + len(fitting[-1]) > limit:
        return [alone]
    return [_packed_load(fitting, limit), *[alone] * (len(longest) > limit)]


def _packed_load(rows: list, limit: int) -> ForwardPass:
    """An upper bound of packs of these rows, which come longest first: the longest ones, the last cut at the limit."""
    lengths, remaining = [], limit
    for row in rows:
        lengths.append(min(len(row), remaining))
        remaining -= lengths[-1]
        if not remaining:
            break
    prefix = common_prefix_length(rows)
    computed = max(sum(lengths[:count]) - prefix * (count - 1) for count in range(1, len(lengths) + 1))
    first = [row.prompt[0] for row in rows]
    shared = max(prefix, int(len(set(first)) < len(first)))  # some of the rows may share a beginning that others lack
    return ForwardPass(computed, [max(length - shared, 0) for length in lengths], shared, _most_supervised(rows, limit))


def _most_supervised(rows: list, limit: int) -> int:
    """The most tokens with loss among `limit` tokens of these rows."""
    tokens = 0.0
    for row in sorted(rows, key=lambda row: row.learned / len(row), reverse=True):
        tokens += row.learned * min(1, limit / len(row))
        limit -= min(limit, len(row))
    return math.ceil(tokens)


def peak_memory(model: Shape, settings: schema.Recipe, sampler: Sampler, width: int, cards: int = 1) -> dict[str, int]:
    """Peak bytes of all steps, by purpose."""
    train = settings.train
    steps = forward_passes(sampler, train.pack_tokens, sampler.total_steps(train))
    return max((training_memory(model, settings, step, width, cards) for step in steps), key=lambda parts: sum(parts.values()))


def number_width(gpu: str | None) -> int:
    """Bytes of a number in the format of computation, by the device's name at AWS; most CPUs have no native bf16."""
    return 4 if gpu is None or {"T4", "V100"} & set(name_words(gpu)) else 2


def make_plan(
    model: Shape,
    settings: schema.Recipe,
    sampler: Sampler,
    held_out: list,
    gpu: str | None,
    number_bytes: int | None = None,
    cards: int = 1,
) -> Plan:
    """The plan for these rows, in tokens, on so many of these devices; `number_bytes` is the size of a number where it is known."""
    train = settings.train
    steps = sampler.total_steps(train)
    visits = [example for step in range(1, steps + 1) for example in sampler.batch(step)]
    speed, source = assumed_flops(gpu)
    width = number_bytes or number_width(gpu)
    evals = math.ceil(steps / train.eval_steps)  # besides the one before the first step
    scored = sum(map(len, held_out))
    batches, alone = math.ceil(len(held_out) / train.eval_batch_size), settings.data.answer_limit * TOKEN * model.layers
    answers = _at_least(_reading(model, scored), speed, batches * alone, gpu)  # of one card
    rounds, gathering = math.ceil(batches / cards), gathering_seconds(model, settings, gpu, width, cards)
    shared_answers = _at_least(_reading(model, scored) / cards, speed, rounds * alone, gpu)
    shared_answers += rounds * settings.data.answer_limit * gathering
    eval_seconds = _at_least(2 * model.multiplied * scored / cards, speed, PASS * model.layers / 3, gpu)
    tokens = sum(map(len, visits))
    operations = flops(model, settings, tokens, sum(example.learned for example in visits)) / cards
    passes = max(tokens / (train.pack_tokens or max(tokens / max(len(visits), 1), 1)) / cards, steps)
    times = 3 if train.gradient_checkpointing == "yes" else 2  # that a pass gathers every layer
    seconds = {
        "training": _at_least(operations, speed, steps * PASS * model.layers, gpu) + passes * times * gathering,
        "measuring": (1 + evals) * eval_seconds + evals * shared_answers * (train.metric_for_best_model is schema.BestMetric.macro_f1),
        # of base and tuned; of merged and GGUF, which one card answers with
        "scoring": 2 * shared_answers + (merged_forms(settings) + bool(settings.publish.gguf)) * answers,
    }
    if train.max_hours:
        seconds["training"] = min(seconds["training"], train.max_hours * 3600)
    source += f", on each of {cards} cards" * (cards > 1) + ", which exchange weights at an assumed speed" * bool(gathering)
    needed, generating = peak_memory(model, settings, sampler, width, cards), scoring_memory(model, settings, held_out, width, cards)
    visited, rows = steps * train.batch_size, sampler.length
    visited_rows = f"{visited:,} of {rows:,} rows" if visited < rows else f"{rows:,} rows"
    words = f"{steps:,} steps x {train.batch_size} rows = {visited_rows} ({visited / rows:.1f} epochs)"
    few = f"{words}; `train.steps=null train.epochs=3` trains on all of them"
    notes = [*([few] if train.steps and visited < rows else []), *_notes(settings, steps)]
    return Plan(needed, seconds, steps, source, generating, train.eval_batch_size, words, notes)


def gathering_seconds(model: Shape, settings: schema.Recipe, gpu: str | None, width: int, cards: int) -> float:
    """How long the cards take to gather every layer once, where each holds a part; nothing is known of processes on CPUs."""
    if settings.train.fsdp != "yes" or gpu is None:
        return 0.0
    speed = next((speed for name, speed in EXCHANGE.items() if name in name_words(gpu)), EXCHANGE["PCIe"])
    return base_weights(model, settings.quant, width) * (cards - 1) / cards / (speed * 1e9)


def merged_forms(settings: schema.Recipe) -> int:
    """How many merged models are made and scored: an NF4 base can be merged in two ways."""
    return settings.publish.merged * (2 if settings.quant.kind is schema.Quantisation.nf4 else 1)


def _at_least(operations: float, speed: float, least: float, gpu: str | None) -> float:
    if not speed:
        return math.nan
    return max(operations / speed, least) if gpu else operations / speed


def _reading(model: Shape, tokens: int) -> float:
    """Floating-point operations to read prompts and write answers of this many tokens."""
    return 2.0 * tokens * (model.multiplied + model.vocabulary * model.hidden)


def _notes(settings: schema.Recipe, steps: int) -> list[str]:
    """What in the settings does not fit the number of steps."""
    train, notes = settings.train, []
    if train.eval_steps > steps:
        notes.append(f"train.eval_steps={train.eval_steps} is more than all {steps} steps: it is measured at the end only")
    if train.save_steps > steps:
        notes.append(
            f"train.save_steps={train.save_steps} is more than all {steps} steps: a run that is killed before the end starts again"
        )
    if train.warmup_steps is not None and train.warmup_steps >= steps:
        notes.append(f"train.warmup_steps={train.warmup_steps} is not less than all {steps} steps: the learning rate never comes down")
    patience = train.early_stopping_patience
    if patience is not None and patience * train.eval_steps >= steps:
        took = f"train.early_stopping_patience={patience} measurements take {patience * train.eval_steps} steps"
        notes.append(f"{took}: it never stops early")
    return notes
