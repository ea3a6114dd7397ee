"""What a run will need, before anything is paid for: memory by what holds it, and time, from the model's numbers and the rows'.

Bytes are counted as PEFT's and transformers' own code keeps them for a Llama-like model; tests compare the count with the
tensors that autograd saves. Seconds follow from multiplications to do and a rate that is assumed, and said to be.
"""

import math
from dataclasses import dataclass, field

from conf import schema

NF4_DOUBLE, NF4_SINGLE = 0.5 + 1 / 64 + 4 / (64 * 256), 0.5 + 4 / 64  # bytes a weight; one constant for 64 weights
MOMENTS = {"SGD": 0, "RMSprop": 4, "Adagrad": 4, "Lion": 4, "Lion8bit": 1, "PagedLion8bit": 1}  # bytes a weight; Adam has two moments
RESERVE = 0.08  # of the card: the CUDA context, and what the allocator cannot use

# Dense bf16 multiplications and additions a second that the maker states, in units of 1e12, by the device's name at AWS.
PEAK = {"L4": 121, "A10G": 70, "L40S": 362, "A100": 312, "H100": 989, "H200": 989, "T4": 8.1}  # T4 in fp32: it has no bf16
SHARE = 0.4  # of it that training reaches: published runs say 0.41 and 0.47 (H100, RTX 4090); not measured on these boxes
# On a GPU the host must start every kernel. For 8B models 0.25 to 0.4 s a small forward and backward pass are published: 32 layers.
PASS, TOKEN = 0.01, 0.001  # seconds a layer: to train on a pack at least, and to generate a token for a batch
CPU = 0.08  # 1e12 a second that two CPU cores reach (BENCHMARKS.md: SmolLM2-135M at 190 tokens a second)


@dataclass(frozen=True)
class Shape:
    """A model's sizes, from its config.json."""

    layers: int
    hidden: int
    inner: int  # of the MLP
    heads: int
    queries: int  # width of all query heads
    keys: int  # width of all key heads, and of all value heads
    vocabulary: int
    tied: bool  # the head is the embedding

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of one layer's matrices."""
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.inner),
            "up_proj": (self.hidden, self.inner),
            "down_proj": (self.inner, self.hidden),
        }

    @property
    def multiplied(self) -> int:
        """Weights that every token is multiplied with; the head not among them."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear.values())


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
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(self.memory.values())


def shape(config: dict) -> Shape | None:
    """The sizes that config.json states, or None for a model that is not made like a Llama."""
    try:
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        width = config.get("head_dim") or hidden // heads
        keys = config.get("num_key_value_heads") or heads
        return Shape(
            config["num_hidden_layers"],
            hidden,
            config["intermediate_size"],
            heads,
            heads * width,
            keys * width,
            config["vocab_size"],
            config.get("tie_word_embeddings", False),
        )
    except KeyError:
        return None


def base(model: Shape, quant: schema.Quant, width: int) -> int:
    """Bytes of the frozen weights; `width` is that of a number that is not quantised."""
    nf4 = quant.kind is schema.Quantisation.nf4
    each = (NF4_DOUBLE if quant.double else NF4_SINGLE) if nf4 else width
    tables = model.vocabulary * model.hidden * (1 if model.tied else 2)
    norms = model.hidden * (2 * model.layers + 1)
    return math.ceil(model.multiplied * each) + (tables + norms) * width


def learned(model: Shape, lora: schema.Lora) -> int:
    """How many weights the adapter has."""
    chosen = [sizes for name, sizes in model.linear.items() if lora.targets == "all-linear" or name in lora.targets]
    magnitudes = sum(outputs for _, outputs in chosen) if lora.options.get("use_dora") else 0
    return model.layers * (lora.r * sum(map(sum, chosen)) + magnitudes)


def moments(train: schema.Train) -> int:
    """Bytes that the optimizer remembers of a weight."""
    name = train.optimizer.rpartition(".")[2]
    return MOMENTS.get(name, 2 if "8bit" in name else 8)


def activations(model: Shape, lora: schema.Lora, load: Load, width: int, nf4: bool) -> int:
    """Bytes that one layer keeps for its backward pass; `width` is that of a number as it is computed."""
    tokens, hidden, inner = load.tokens, model.hidden, model.inner
    chosen = [name for name in model.linear if lora.targets == "all-linear" or name in lora.targets]
    # An adapter's A keeps its input. Where the base is plain and computed in bf16, PEFT converts the input for each A anew.
    apart = width == 2 and not nf4
    kept = 0
    for names, size in ((("q_proj", "k_proj", "v_proj"), hidden), (("o_proj",), model.queries)):
        wanted = sum(name in chosen for name in names)
        kept += size * (wanted if apart else min(wanted, 1))
    for names, size in ((("gate_proj", "up_proj"), hidden), (("down_proj",), inner)):
        wanted = sum(name in chosen for name in names)
        kept += size * (wanted if apart else min(wanted, 1))
    kept += 3 * inner + lora.r * len(chosen)  # gate before and after its function, up; what each A gives
    kept += 2 * model.queries + 2 * model.keys  # queries and answers of attention, keys and values
    # Rows that share a beginning each keep the keys and values of it and of themselves, for every query head.
    spread = 2 * model.queries * (sum(load.rows) + load.shared * len(load.rows)) if load.shared else 0
    norms = tokens * (2 * hidden * (4 if width == 2 else width) + 8 + 4 * model.heads)  # two norms, in fp32; attention's sums
    return width * (tokens * kept + spread) + norms


def masks(load: Load, width: int) -> int:
    """Bytes of who sees whom where rows share a beginning; all layers use the same."""
    return width * sum(row * (row + load.shared) for row in load.rows) if load.shared else 0


def memory(model: Shape, settings: schema.Recipe, load: Load, width: int) -> dict[str, int]:
    """Bytes at the fullest moment of a step, by what holds them."""
    nf4 = settings.quant.kind is schema.Quantisation.nf4
    weights, each = learned(model, settings.lora), activations(model, settings.lora, load, width, nf4)
    stream = load.tokens * model.hidden * width
    kept = model.layers * stream + each if settings.train.recompute == "yes" else model.layers * each
    return {
        "base weights": base(model, settings.quant, width),
        "adapter": 4 * weights,
        "gradients": 4 * weights,
        "optimizer": moments(settings.train) * weights,
        "activations": kept + masks(load, width),
        # At the tokens with loss: as computed, as probabilities in fp32, and their gradients in fp32.
        "logits": load.supervised * model.vocabulary * (width + 8),
        "workspace": width * (model.hidden * model.inner * nf4 + 3 * load.tokens * model.inner),  # one unpacked matrix; one MLP's gradients
    }


def saved(model: Shape, settings: schema.Recipe, load: Load, width: int) -> int:
    """Bytes that autograd holds when the loss is known and nothing has gone backward: what a test can count."""
    nf4 = settings.quant.kind is schema.Quantisation.nf4
    logits = 4 * load.supervised * model.vocabulary
    if settings.train.recompute == "yes":
        return (model.layers + 1) * load.tokens * model.hidden * width + logits
    return model.layers * activations(model, settings.lora, load, width, nf4) + masks(load, width) + logits


def work(model: Shape, settings: schema.Recipe, tokens: int, supervised: int) -> float:
    """Multiplications and additions to train on so many tokens: 4 for each frozen weight, 6 where it is computed again."""
    times = 6 if settings.train.recompute == "yes" else 4
    adapter = 6 * learned(model, settings.lora)
    return times * tokens * model.multiplied + adapter * tokens + 4 * supervised * model.vocabulary * model.hidden


def rate(gpu: str | None) -> tuple[float, str]:
    """Multiplications and additions a second to count on, and where that figure is from."""
    if gpu is None:
        return CPU * 1e12, f"{CPU * 1000:.0f} GFLOP/s, as two CPU cores did (BENCHMARKS.md)"
    peak = next((value for name, value in PEAK.items() if name in words(gpu)), None)
    if peak is None:
        return 0.0, f"the speed of {gpu} is not known"
    return peak * SHARE * 1e12, f"{SHARE:.0%} of the {peak} TFLOP/s that {gpu}'s maker states: an assumption, not measured"


def words(gpu: str) -> list[str]:
    """The words of a card's name: NVIDIA L4, NVIDIA H100 80GB HBM3, NVIDIA A100-SXM4-40GB."""
    return gpu.replace("-", " ").split()


def pack(lengths: list[int], shared: int, supervised: int, limit: int | None) -> Load:
    """The fullest forward pass that a step of the longest rows makes: `lengths` are those of one step's rows, longest first."""
    rows = [lengths[0]]
    for length in lengths[1:]:
        if limit and sum(rows) + length <= limit:
            rows.append(length)
    shared = shared if len(rows) > 1 else 0
    share = supervised / sum(lengths)
    return Load(sum(rows) - shared * (len(rows) - 1), [length - shared for length in rows], shared, math.ceil(share * sum(rows)))


def fullest(train: schema.Train, examples: list) -> Load:
    """The fullest forward pass of all: that of the longest rows."""
    longest = sorted(examples, key=len, reverse=True)[: train.rows_per_step]
    return pack([len(each) for each in longest], _shared(longest), sum(each.learned for each in longest), train.pack_tokens)


def number_width(gpu: str | None) -> int:
    """Bytes of a number as it is computed, by the device's name at AWS; a CPU mostly has no bf16 of its own."""
    return 4 if gpu is None or {"T4", "V100"} & set(words(gpu)) else 2


def make(model: Shape, settings: schema.Recipe, examples: list, held_out: list, gpu: str | None, each: int | None = None) -> Plan:
    """The plan for these rows, in tokens, on this device; `each` are the bytes of a number where they are known."""
    train = settings.train
    epoch = sum(map(len, examples))
    supervised = sum(example.learned for example in examples)
    steps = train.steps or math.ceil(train.epochs * len(examples) / train.rows_per_step)
    part = steps * train.rows_per_step / len(examples)  # epochs
    speed, source = rate(gpu)
    looks = 1 + math.ceil(steps / train.eval_every)
    scored = sum(map(len, held_out))
    batches = math.ceil(len(held_out) / train.eval_batch)
    seconds = {
        "training": _at_least(
            work(model, settings, round(epoch * part), round(supervised * part)), speed, steps * PASS * model.layers, gpu
        ),
        "measuring": _at_least(2 * model.multiplied * scored * looks, speed, looks * PASS * model.layers / 3, gpu),
        # The base model's answers and the tuned one's.
        "scoring": 2 * _at_least(_reading(model, scored), speed, batches * settings.data.max_new_tokens * TOKEN * model.layers, gpu),
    }
    if train.hours:
        seconds["training"] = min(seconds["training"], train.hours * 3600)
    needed = memory(model, settings, fullest(train, examples), each or number_width(gpu))
    return Plan(needed, seconds, steps, source, _notes(settings, steps))


def _at_least(operations: float, speed: float, least: float, gpu: str | None) -> float:
    if not speed:
        return math.nan
    return max(operations / speed, least) if gpu else operations / speed


def _reading(model: Shape, tokens: int) -> float:
    """Operations to read prompts and write answers of so many tokens."""
    return 2.0 * tokens * (model.multiplied + model.vocabulary * model.hidden)


def _shared(rows: list) -> int:
    alike = 0
    for tokens in zip(*(row.prompt for row in rows), strict=False):
        if len(set(tokens)) > 1:
            break
        alike += 1
    return min(alike, min(row.turns[0][0] for row in rows) - 1) if len(rows) > 1 else 0


def _notes(settings: schema.Recipe, steps: int) -> list[str]:
    """What in the settings does not fit the number of steps."""
    train, notes = settings.train, []
    if train.eval_every > steps:
        notes.append(f"train.eval_every={train.eval_every} is more than all {steps} steps: it is measured at the end only")
    if train.save_every > steps:
        notes.append(f"train.save_every={train.save_every} is more than all {steps} steps: what is killed before the end starts anew")
    if train.warmup_steps is not None and train.warmup_steps >= steps:
        notes.append(f"train.warmup_steps={train.warmup_steps} is not less than all {steps} steps: the learning rate never comes down")
    if train.patience is not None and train.patience * train.eval_every >= steps:
        notes.append(f"train.patience={train.patience} measurements take {train.patience * train.eval_every} steps: it never stops early")
    return notes
