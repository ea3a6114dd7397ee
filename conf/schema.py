"""The typed settings of a run: names, types and rules. Values live in the YAML files beside this one."""

import ipaddress
import math
import re
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from omegaconf import MISSING

GITHUB = r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+|[A-Za-z0-9-]+@[0-9]+/[A-Za-z0-9._-]+@[0-9]+"  # a repository, as GitHub lets one name it

# Parameter Store says most of these, and they are in commands that messages give: no name of AWS's has a sign that a shell acts on.
RESERVATION = re.compile(r"cr-[0-9a-f]+")
AWS_NAME = re.compile(r"[A-Za-z0-9_.:/@+=,#()-]*|<ssm:[A-Za-z0-9_./-]+>")  # the latter stands for what nobody has asked for
NAMED_BY_AWS = (
    *("region", "bucket", "repository", "box_role", "instance_profile", "launch_template", "scheduler_role"),
    *("hub_secret", "hub_read_secret", "log_group", "log_stream_prefix"),
)


class Kind(Enum):
    full = "full"
    smoke = "smoke"  # proves the whole chain; published to `<repository>-smoke` only


class Quantisation(Enum):
    none = "none"
    nf4 = "nf4"


class LrScheduler(Enum):
    constant = "constant"
    linear = "linear"
    cosine = "cosine"
    wsd = "wsd"  # warm up, stay, decay in a line over the last `train.decay_ratio` of the steps


class BestMetric(Enum):
    """What decides which step is exported."""

    loss = "loss"  # of held-out answer tokens; comes with every measurement
    macro_f1 = "macro_f1"  # over fields, of generated answers: every measurement generates them, which takes time


class LossOn(Enum):
    """Which turns of a conversation have loss."""

    last_answer = "last_answer"
    every_answer = "every_answer"


class Gguf(Enum):
    """How the weights stand in a GGUF file, by llama.cpp's names."""

    f16 = "f16"
    q8_0 = "q8_0"
    q4_k_m = "q4_k_m"


class TooLong(Enum):
    """What becomes of a row that has more tokens than `data.max_length`."""

    refuse = "refuse"
    drop = "drop"


NO_OPTIONS = {"messages", "add_generation_prompt", "bos_token", "eos_token", "pad_token", "unk_token"}  # of a chat template

POSITIVE = (  # of `train`
    *("steps", "epochs", "max_hours", "batch_size", "pack_tokens", "lr", "loraplus_lr_ratio", "decay_ratio", "max_grad_norm"),
    *("eval_steps", "early_stopping_patience", "save_steps", "save_total_limit", "eval_batch_size"),
)

# A folder, a key in S3 and a container are called so; docker's own rule for names, and a length that leaves room for endings.
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,99}")

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")  # owner/name

SMALLEST_PREFIX = 24  # of the network that may come in by SSH: 256 addresses


def positive(path: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{path} is {value}; use more than 0")


def _whole(value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise ValueError(f"train.processes is {value}; use auto, or a number of processes") from error


def fraction(path: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{path} is {value}; use 0 or more and less than 1")


@dataclass
class Model:
    id: str = MISSING  # repository on the Hub
    revision: str = MISSING  # branch, tag or commit
    note: str = MISSING  # a fact about the weights that the card must repeat; empty when there is none
    gated: bool = MISSING  # its owner must grant access to the token's account first


@dataclass
class Lora:
    r: int = MISSING  # rank
    alpha: float = MISSING
    dropout: float = MISSING
    targets: Any = MISSING  # "all-linear" or a list of module names, as PEFT's target_modules
    options: dict[str, Any] = MISSING  # more of PEFT's LoraConfig, by its own names
    adapter: str | None = None  # a finished run, or `owner/name` on the Hub, from whose adapter training goes on; null: a new adapter
    adapter_sha256: dict[str, str] = field(default_factory=dict)  # of a run's adapter, by file; filled in when a run is made

    def __post_init__(self):
        positive("lora.r", self.r)
        positive("lora.alpha", self.alpha)
        fraction("lora.dropout", self.dropout)
        listed = isinstance(self.targets, list) and self.targets and all(isinstance(name, str) and name for name in self.targets)
        if not (self.targets == "all-linear" or listed):
            raise ValueError(f"lora.targets is {self.targets!r}; use all-linear or a list such as [q_proj,v_proj]")
        if self.adapter and not (RUN_ID.fullmatch(self.adapter) or HUB_ID.fullmatch(self.adapter)):
            raise ValueError(f"lora.adapter is {self.adapter!r}; name a finished run, or an adapter on the Hub as owner/name")
        for taken, ours in {"r": "r", "lora_alpha": "alpha", "lora_dropout": "dropout", "target_modules": "targets"}.items():
            if taken in self.options:
                raise ValueError(f"lora.options has {taken}; set `lora.{ours}` in its place")


@dataclass
class Quant:
    kind: Quantisation = MISSING  # how the frozen base weights are stored
    double_quant: bool = MISSING  # quantise the quantisation constants too


@dataclass
class Data:
    train: str = MISSING  # a JSONL, CSV or Parquet file, or `hub:<dataset id>:<split>`
    validation: str = MISSING  # held-out rows; scored, never trained on
    fields: list[str] | None = MISSING  # keys of the JSON answer that are scored; null for free text
    max_length: int = MISSING  # tokens of prompt and completion together
    too_long: TooLong = MISSING
    loss_on: LossOn = MISSING
    also: dict[str, float] = MISSING  # more training rows: from where, and how often an epoch visits each (2 is twice, 0.5 every other)
    eval_rows: int = MISSING  # rows of `validation` that are scored, from the top; what `too_long` leaves out does not count
    max_new_tokens: int | None = MISSING  # limit of one generated answer; null: by the longest of the rows
    train_sha256: str | None = None  # filled in when a run is made; the run's inputs are found by it
    validation_sha256: str | None = None
    also_sha256: dict[str, str] = field(default_factory=dict)
    train_rows: int | None = None  # of `train`, drawn by the seed: those of a smaller number are among a larger one's; null: all
    chat_template: str | None = None  # Jinja, in place of the model's own; a file's name stands for what is in it
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)  # what the template reads besides the turns, by its own names
    split_special_tokens: bool = True  # whether a control token of the model in a row's text is read as text, as all of it

    def __post_init__(self):
        for name in sorted(NO_OPTIONS & self.chat_template_kwargs.keys()):
            raise ValueError(f"data.chat_template_kwargs has {name}, which the rows and the model say; leave it out")
        for name in ("max_length", "train_rows", "eval_rows", "max_new_tokens"):
            if getattr(self, name) is not None:
                positive(f"data.{name}", getattr(self, name))
        for source, weight in self.also.items():
            positive(f"data.also.{source}", weight)
        if self.fields is not None and (not self.fields or len(set(self.fields)) < len(self.fields)):
            shown = f"[{','.join(self.fields)}]"
            raise ValueError(f"data.fields is {shown}; name each key to score once, or score free text: `data.fields=null`")

    @property
    def answer_limit(self) -> int:
        """`max_new_tokens`, once it is made for the rows."""
        assert self.max_new_tokens is not None, "the rows' answers have not been looked at"
        return self.max_new_tokens


@dataclass
class Train:
    steps: int | None = MISSING  # optimizer steps; null means `epochs` decides
    epochs: float | None = MISSING  # null: by the number of rows, few more often
    max_hours: float | None = MISSING  # of training, after which it stops wherever it is; null means no limit
    batch_size: int = MISSING  # rows whose gradients make one optimizer step
    pack_tokens: int | None = MISSING  # tokens of one packed forward pass; the step's rows fill as few as they fit in; null: a row each
    gradient_checkpointing: Any = MISSING  # activations computed again in the backward pass: yes, no, or auto: only where they do not fit
    optimizer: str = MISSING  # a class of torch.optim or bitsandbytes.optim
    optimizer_options: dict[str, Any] = MISSING  # by the optimizer's own names
    lr: float = MISSING
    loraplus_lr_ratio: float = MISSING  # how much faster the adapter's B learns than its A
    lr_scheduler: LrScheduler = MISSING
    warmup_ratio: float = MISSING  # share of all steps
    warmup_steps: int | None = MISSING  # in place of the share
    decay_ratio: float = MISSING  # share of the steps behind the warmup; for the schedule wsd
    max_grad_norm: float = MISSING  # largest gradient norm
    neftune_noise_alpha: float = MISSING  # noise on the embeddings in training; 0 is none
    eval_steps: int = MISSING  # steps between two measurements of the completion loss on held-out rows
    metric_for_best_model: BestMetric = MISSING
    early_stopping_patience: int | None = MISSING  # measurements in a row without a better one, after which it stops; null means never
    save_steps: int = MISSING  # steps between two checkpoints; the best step is always saved
    save_total_limit: int = MISSING  # checkpoints kept besides the best
    eval_batch_size: int = MISSING  # rows generated at once
    report_to: list[str] = MISSING  # tensorboard, mlflow, wandb, trackio
    processes: Any = "auto"  # that train together on one machine: auto is one a GPU. Runs of 0.1.0 have neither this nor the next
    fsdp: Any = "auto"  # base weights cut up over the processes: yes, no, or auto: only where one card does not hold them

    def __post_init__(self):
        if str(self.processes) != "auto":
            self.processes = _whole(self.processes)
            positive("train.processes", self.processes)
        for name in ("gradient_checkpointing", "fsdp"):
            word = str(getattr(self, name)).lower()
            setattr(self, name, {"true": "yes", "false": "no"}.get(word, word))  # YAML's words for both
            if getattr(self, name) not in ("auto", "yes", "no"):
                raise ValueError(f"train.{name} is {word}; use auto, yes or no")
        for name in POSITIVE:
            if getattr(self, name) is not None:
                positive(f"train.{name}", getattr(self, name))
        if not math.isfinite(self.lr) or self.lr > 1:
            raise ValueError(f"train.lr is {self.lr}; 1e-5 to 1e-2 is usual")
        fraction("train.warmup_ratio", self.warmup_ratio)
        if self.decay_ratio > 1:
            raise ValueError(f"train.decay_ratio is {self.decay_ratio}; it is a share: use 1 or less")
        for name in ("warmup_steps", "neftune_noise_alpha"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"train.{name} is {getattr(self, name)}; use 0 or more")
        if self.optimizer.rpartition(".")[0] not in ("torch.optim", "bitsandbytes.optim"):
            raise ValueError(f"train.optimizer is {self.optimizer}; use a class such as torch.optim.AdamW or bitsandbytes.optim.AdamW8bit")


@dataclass
class Publish:
    repository: str | None = MISSING  # null means `<whoami>/<name>`
    private: bool = MISSING
    merged: bool = MISSING  # also make the adapter one model with its base, in `<repository>-merged`: as large as the base itself
    gguf: Gguf | None = MISSING  # also put the merged model into one file for llama.cpp and Ollama, beside it in that repository

    def __post_init__(self):
        if self.gguf is Gguf.q4_k_m:
            what = "publish.gguf is q4_k_m, which only llama.cpp's own program can make"
            raise ValueError(f"{what}; use f16, then `llama-quantize model-f16.gguf model-q4_k_m.gguf Q4_K_M`")
        if self.gguf and not self.merged:
            raise ValueError(f"publish.gguf is {self.gguf.value}, which is made of the merged model; add `publish.merged=true`")


@dataclass
class Provenance:
    """Where a run came from; filled in when it is made, copied into its manifest. None means unknown."""

    git_sha: str | None = None
    git_dirty: bool | None = None
    image: str | None = None  # name@digest
    instance_type: str | None = None
    price_per_hour: float | None = None  # USD
    price_source: str | None = None
    swept: list[str] = field(default_factory=list)  # overrides: what sets it apart in its sweep
    owner: str | None = None  # who made it, by the name in IAM
    typed: list[str] = field(default_factory=list)  # the overrides it was made with, without secrets; files by names that hold anywhere


@dataclass
class Recipe:
    """All that the trainer needs; a run's `config.yaml` alone reproduces it."""

    name: str = MISSING  # of the experiment; part of the run's id and of the default repository
    kind: Kind = MISSING
    seed: int = MISSING
    run_id: str | None = None  # filled in when the run is made
    runs: str = MISSING  # folder of run folders, for a run that was started without one
    model: Model = MISSING
    lora: Lora = MISSING
    quant: Quant = MISSING
    data: Data = MISSING
    train: Train = MISSING
    publish: Publish = MISSING
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self):
        if not self.name or set(self.name) - set("abcdefghijklmnopqrstuvwxyz0123456789-_."):
            raise ValueError(f"name is {self.name!r}; use small letters, digits, '-', '_' and '.'")
        if self.run_id is not None and not RUN_ID.fullmatch(self.run_id):
            raise ValueError(
                f"run_id is {self.run_id!r}; use 2 to 100 letters, digits, '-', '_' and '.', beginning with a letter or a digit"
            )
        if self.train.metric_for_best_model is BestMetric.macro_f1 and self.data.fields is None:
            what = "train.metric_for_best_model is macro_f1, which free text (data.fields=null) does not have"
            raise ValueError(f"{what}; set `train.metric_for_best_model=loss`")


class Backend(Enum):
    process = "process"  # a process tree: no root needed
    machine = "machine"  # namespaces, disks, docker and a registry: Linux and root


STACK = re.compile(r"[a-z][a-z0-9]{0,15}")  # no `-`: names that begin alike are never one the beginning of the other's names
TOOL = "fine-tune-slm"  # what the stack without a name is called, and how the names of all others begin


@dataclass
class Cloud:
    name: str = MISSING
    stack: str | None = MISSING  # one of several in an account, each with everything of its own; null is the one without a name
    loopback: bool = MISSING  # every endpoint must be on 127.0.0.1, or none may be
    state: str | None = MISSING  # folder of the emulated cloud
    backend: Backend | None = MISSING  # of the emulated boxes
    region: str = MISSING
    bucket: str = MISSING
    prefix: str = MISSING  # of every key of ours in the bucket
    repository: str = MISSING  # in ECR
    image_digest: str | None = MISSING  # a record only: which image was pushed last; the one that is run is found by its tag
    build_args: dict[str, str] = MISSING  # of the image, by the Dockerfile's own names; part of what its tag is made of
    box_role: str = MISSING  # what the box may do
    instance_profile: str = MISSING  # hands that role to it
    launch_template: str = MISSING  # what every box is launched with
    instance_id: str | None = MISSING  # a record only: the box is found by its tag
    volume_id: str | None = MISSING  # a record only: the volume is found by its tag
    scheduler_role: str = MISSING  # what stops a box from outside when its time is over
    hub_secret: str = MISSING  # name of the secret that holds the Hub token; never the token
    hub_read_secret: str | None = MISSING  # likewise, of a token that may only read: then the box reads this one and never the other
    hub_repository: str | None = MISSING  # where `publish.repository` is null
    log_group: str = MISSING
    log_stream_prefix: str = MISSING  # a run's log stream is PREFIX/RUN
    github: str | None = MISSING  # OWNER/NAME, or OWNER@ID/NAME@ID, whose image workflow may push to the repository
    budget_usd: int = MISSING  # a month, of the whole account, for the budget that `inv init` makes; 0 for none
    budget_email: str | None = MISSING  # gets an e-mail when 80 percent of it are spent

    def __post_init__(self):
        if self.stack is not None and not STACK.fullmatch(self.stack):
            raise ValueError(f"cloud.stack is {self.stack!r}; use a small letter, then up to 15 small letters and digits")
        if self.budget_usd < 0:
            raise ValueError(f"cloud.budget_usd is {self.budget_usd}; use 0 or more")
        if self.github and not re.fullmatch(GITHUB, self.github):  # `*` and `?` would let in other repositories
            raise ValueError(f"cloud.github is {self.github!r}; use OWNER/NAME, or OWNER@ID/NAME@ID with GitHub's own numbers of both")
        for name in NAMED_BY_AWS:
            if not AWS_NAME.fullmatch(value := getattr(self, name) or ""):
                raise ValueError(f"cloud.{name} is {value!r}; use a name that AWS can give, without spaces and signs that a shell acts on")
        for name, value in self.build_args.items():
            if not f"{name}{value}".isprintable() or " " in f"{name}{value}":
                raise ValueError(f"cloud.build_args.{name} is {value!r}; use a value without spaces")

    @property
    def own(self) -> str:
        """What the stack is called in CloudFormation, and what names of its things begin with."""
        return TOOL if self.stack is None else f"{TOOL}-{self.stack}"

    @property
    def box_names(self) -> tuple[str, str]:
        """Patterns of IAM: what boxes of this stack are called, and what only boxes of others are."""
        return ("*", "*:*") if self.stack is None else (f"{self.stack}:*", f"{self.stack}:*:*")

    @property
    def box_secret(self) -> str:
        """The secret that the box may read."""
        return self.hub_read_secret or self.hub_secret

    @property
    def webhook_secrets(self) -> str:
        """How the names of secrets begin that hold an address for notices: the box may read these, too."""
        return f"{self.own}/webhook"

    @property
    def root(self) -> str:
        """Of its names in Parameter Store."""
        return f"/{self.own}/"


class AllocationStrategy(Enum):
    """EC2 Fleet's names."""

    prioritized = "prioritized"  # in the order in which they are listed
    lowest_price = "lowest_price"


@dataclass
class Box:
    name: str = MISSING  # found by the tag fine-tune-slm:box; in a stack with a name it is STACK:NAME
    adopt: str | None = MISSING  # id of an instance to take as the box where none has its tag, after a question
    instance_type: Any = MISSING  # or a list: the first of them that AWS has room for
    allocation_strategy: AllocationStrategy = AllocationStrategy.prioritized  # how the types of a list are tried; runs of 0.1.0 say none
    subnet: str | None = MISSING  # null: any of the default network
    reservation: str | None = None  # id of a capacity reservation that a new box is launched into; runs of 0.1.0 say none
    ami: str = MISSING  # public parameter that names the image
    root_gb: int = MISSING
    disk_gb: int = MISSING  # the volume that keeps runs and the model cache
    disk_type: str = MISSING
    mount: str = MISSING
    spot: bool = MISSING  # cheaper, and AWS may stop it; on demand where no zone has it
    gpu: bool = MISSING  # refuse to train when the driver shows no GPU
    idle_minutes: float = MISSING  # without a run and without a command for so long, the box stops itself
    max_hours: float = MISSING  # after its start the box is stopped, whatever it is doing
    ssh: bool = MISSING  # scripts travel by SSH in place of Run Command; `up` opens port 22 to `ssh_from` alone, `down` closes it
    ssh_from: str = MISSING  # which addresses may use that port: auto (this machine's address, as AWS sees it), or a network
    user: str = MISSING  # of the image; it may use sudo without a password

    def __post_init__(self):
        if not self.instance_types or not all(isinstance(kind, str) and kind and AWS_NAME.fullmatch(kind) for kind in self.instance_types):
            raise ValueError(
                f"box.instance_type is {self.instance_type!r}; use a type such as g6.2xlarge, or several: "
                "'box.instance_type=[g6.2xlarge,g5.2xlarge]'"
            )
        if self.reservation is not None and not RESERVATION.fullmatch(self.reservation):
            raise ValueError(f"box.reservation is {self.reservation!r}; use the id of a capacity reservation, such as cr-0123456789abcdef0")
        if self.reservation is not None and self.spot:
            raise ValueError("box.reservation and box.spot=true: a reservation is not of spot; use one of them")
        positive("box.root_gb", self.root_gb)
        positive("box.disk_gb", self.disk_gb)
        positive("box.idle_minutes", self.idle_minutes)
        positive("box.max_hours", self.max_hours)
        if self.max_hours * 60 < self.idle_minutes:
            raise ValueError(f"box.max_hours is {self.max_hours}; use at least the {self.idle_minutes} minutes of box.idle_minutes")
        if not self.mount.startswith("/") or self.mount.rstrip("/") == "":
            raise ValueError(f"box.mount is {self.mount!r}; use an absolute path such as /mnt/training")
        if self.ssh_from != "auto":
            self._check_network()

    @property
    def instance_types(self) -> list[str]:
        """The types that will do. Parameter Store has them in one text."""
        return self.instance_type.replace(" ", "").split(",") if isinstance(self.instance_type, str) else self.instance_type

    def _check_network(self) -> None:
        try:
            network = ipaddress.IPv4Network(self.ssh_from)
        except ValueError as error:
            raise ValueError(f"box.ssh_from is {self.ssh_from!r}; use auto, or a network such as 203.0.113.7/32") from error
        if network.prefixlen < SMALLEST_PREFIX:
            raise ValueError(f"box.ssh_from is {network}, {network.num_addresses} addresses; use /{SMALLEST_PREFIX} or narrower, or auto")


@dataclass
class Cost:
    limit: float | None = MISSING  # USD that a run may cost; null means no limit
    per_hour: float | None = MISSING  # USD an hour of the box, where AWS does not say or says otherwise; null asks AWS

    def __post_init__(self):
        for name in ("limit", "per_hour"):
            if getattr(self, name) is not None:
                positive(f"cost.{name}", getattr(self, name))


class Engine(Enum):
    none = "none"
    batch = "batch"  # AWS Batch, a job for each run


class Market(Enum):
    spot = "spot"
    on_demand = "on_demand"
    spot_first = "spot_first"  # on demand where there is no spot


@dataclass
class Fleet:
    """Where runs train that are not the box's. Those of 0.1.0 know no fleet: hence the values, which conf/fleet/ has too."""

    engine: Engine = Engine.none
    market: Market = Market.spot
    instance_type: list[str] = field(default_factory=lambda: ["g6.2xlarge"])  # any of them will do
    gpus: int = 1  # of one run; 0 where there is no need of one
    max_vcpus: int = 32  # of all instances together; the account's stack has it
    attempts: int = 5  # of one run, when AWS takes its instance back or cannot start it
    max_hours: float = 12.0  # of one attempt
    wait_minutes: int = 60  # for an instance; the account's stack has it
    disk_gb: int = 200  # root disk of an instance; the account's stack has it

    def __post_init__(self):
        if not self.instance_type or not all(name and AWS_NAME.fullmatch(name) for name in self.instance_type):
            raise ValueError(
                f"fleet.instance_type is {self.instance_type}; use a list such as 'fleet.instance_type=[g6.2xlarge,g5.2xlarge]'"
            )
        if self.gpus < 0:
            raise ValueError(f"fleet.gpus is {self.gpus}; use 0 or more")
        for name in ("max_hours", "disk_gb"):
            positive(f"fleet.{name}", getattr(self, name))
        if self.max_vcpus < 0:
            raise ValueError(f"fleet.max_vcpus is {self.max_vcpus}; use 0 or more: with 0 `inv init` removes the account's fleet")
        if not 1 <= self.attempts <= 10:  # AWS Batch, User Guide, "Automated job retries"
            raise ValueError(f"fleet.attempts is {self.attempts}; use 1 to 10, as AWS Batch does")
        if not 10 <= self.wait_minutes <= 1440:  # AWS Batch, API Reference, JobStateTimeLimitAction: 600 to 86,400 seconds
            raise ValueError(f"fleet.wait_minutes is {self.wait_minutes}; use 10 to 1440, as AWS Batch does")


NOTICES = {  # what somebody may be told of
    "done": "a run is finished, and S3 has all of it",
    "failed": "a run has failed",
    "stopped": "a run was ended by hand, or the box by box.max_hours or from outside",
    "spot": "AWS takes a spot box back",
    "idle": "the box stops itself, as nobody uses it or its trainer hangs",
    "cost": "cost.limit is spent",
}
EMAIL = re.compile(r"[^\s@<>\"'\\]+@[^\s@<>\"'\\]+\.[^\s@<>\"'\\]+")


@dataclass
class Notify:
    """Who is told when a run or the box ends. Runs of 0.1.0 have none of it: hence the values, which conf/main.yaml has too."""

    email: str | None = None  # gets mail, once its owner has confirmed it; `inv init` makes the topic
    webhook: str | None = None  # name of the secret that holds an address which is posted to; never the address
    on: list[str] = field(default_factory=lambda: list(NOTICES))

    def __post_init__(self):
        if self.email and not EMAIL.fullmatch(self.email):
            raise ValueError(f"notify.email is {self.email!r}; use an address such as you@example.com")
        for name in self.on:
            if name not in NOTICES:
                raise ValueError(f"notify.on has {name!r}; name some of {', '.join(NOTICES)}")

    @property
    def events(self) -> tuple[str, ...]:
        """What somebody is told of: nothing where nobody hears of it."""
        return tuple(name for name in NOTICES if name in self.on and (self.email or self.webhook))


@dataclass
class Run(Recipe):
    """A recipe with the cloud and the box it runs on: what the laptop composes."""

    cloud: Cloud = MISSING
    box: Box = MISSING
    cost: Cost = MISSING
    fleet: Fleet = field(default_factory=Fleet)  # runs of 0.1.0 have none
    notify: Notify = field(default_factory=Notify)

    def __post_init__(self):
        super().__post_init__()
        if self.notify.webhook and not re.fullmatch(f"{self.cloud.webhook_secrets}[A-Za-z0-9_-]*", self.notify.webhook):
            # What stands there may be the address itself, and is not repeated.
            name = self.cloud.webhook_secrets
            raise ValueError(f"notify.webhook is no name that the box may read; keep the address in a secret `{name}`, and say that name")
        stack, _, box_name = self.box.name.rpartition(":")
        if ":" in box_name or stack not in ("", self.cloud.stack or ""):
            raise ValueError(f"box.name is {self.box.name!r}; use a name without `:`, or another stack: `cloud.stack=...`")
        if self.cloud.stack:  # its stack's policies know it by this
            self.box = replace(self.box, name=f"{self.cloud.stack}:{box_name}")
