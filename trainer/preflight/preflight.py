"""Checks before anything is paid for, on the laptop, without torch."""

import copy
import dataclasses
import math
import shlex
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, NotASafetensorsRepoError, SafetensorsParsingError
from huggingface_hub.utils import disable_progress_bars

from conf import paths
from conf.price import HourlyPrice
from conf.problem import Problem
from conf.schema import Data, Recipe, Run
from conf.text.visible import visible
from data import rows
from data.readers.tables import kind
from trainer import files
from trainer.estimate import architecture, fit, limits, memory, shape
from trainer.estimate import summary as words
from trainer.estimate.architecture import Verdict
from trainer.estimate.shape import Shape
from trainer.export import architectures, vocabulary
from trainer.hub import adapter_config, permissions
from trainer.hub_errors import explained
from trainer.record import figures
from trainer.rows import description, prompt, tokens
from trainer.rows.prompt import Example, Prompt
from trainer.rows.rows import check_scorable, data_check_hint
from trainer.rows.sampler import Sampler, WeightedRows, drawn, with_answer_limit

ALLOW_PATTERNS = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]


def run_checks(
    run: Run, endpoint: str | None, token: str | None, card, price: HourlyPrice | None, colour: bool, inspection: "Inspection | None" = None
) -> "tuple[dict, Report]":
    """`check_inputs` and `make_report`: facts for the run, and lines to print; or a Problem with the first thing that would stop it."""
    facts = check_inputs(run, endpoint, token)
    report = make_report(inspection or inspect(run, endpoint, token), run, card, price, colour)
    repository = facts["repository"]
    allowed = (
        f"the token may write to {repository}, where the run can be published"
        if repository
        else "no token here: the right to publish is not checked"
    )
    return facts, dataclasses.replace(report, details=[*report.details, f"hub      {allowed}"])


def check_inputs(settings: Run, endpoint: str | None, token: str | None) -> dict:
    """Facts about the rows, the token and the base model that a run needs, or a Problem with the first thing that would stop it.

    Datasets of the Hub, and Parquet where pyarrow is missing, are read by the trainer; here they need only exist, and their number of
    rows is None.
    """
    hub = _hub(endpoint, token)
    facts = check_data(settings.data, endpoint, token)
    repository = settings.publish.repository or settings.cloud.hub_repository
    permissions.check_repository_id(
        permissions.repository_id(repository, settings.name, settings.kind.value, "OWNER"), settings.publish.merged
    )
    facts["repository"] = (
        permissions.check_write_access(hub, repository, settings.name, settings.kind.value, settings.publish.merged) if token else None
    )
    facts |= check_model(hub, settings, endpoint)
    adapter_config.check_on_hub(settings, endpoint, token or False, facts["model_revision"])
    return facts


def check_data(data: Data, endpoint: str | None, token: str | None) -> dict:
    """How many rows there are to train on and to score, and the files' sha256; every row of theirs can be used."""
    facts, hashes = {}, {}
    for name in ("train", "validation"):
        source = getattr(data, name)
        count, hashes[source] = _check_source(source, f"data.{name}", data, endpoint, token)
        facts |= {f"{name}_rows": count, f"{name}_sha256": hashes[source]}
    for source in data.also:
        _, hashes[source] = _check_source(source, "data.also", data, endpoint, token)
    _check_held_out(data, hashes)
    return facts


def _check_source(source: str, setting: str, data: Data, endpoint: str | None, token: str | None) -> tuple[int | None, str | None]:
    if source.startswith(paths.HUB):
        return None, _check_hub_dataset(_hub(endpoint, token), source, endpoint)
    scan = _rows(source, setting)
    sha256 = files.digest(paths.resolve(source))
    if scan is None:
        return None, sha256
    _check_fields(source, setting, scan.rows, data.fields)
    return len(scan.rows), sha256


def _hub(endpoint: str | None, token: str | bool | None) -> HfApi:
    return HfApi(endpoint=endpoint, token=token or False)  # False: never the token of a login on this machine


@dataclass(frozen=True)
class TokenizedRows:
    """The rows in the model's own tokens."""

    prompt: Prompt
    sampler: Sampler
    held_out: list[Example]
    data: Data  # the settings of rows, with what is made for them

    def settings(self, run: Run) -> Run:
        """The run's settings with those."""
        made = copy.copy(run)
        made.data = self.data
        return made


@dataclass(frozen=True)
class Inspection:
    """What the model will see, and its sizes. None where only the trainer can find out."""

    rows: TokenizedRows | None
    shape: Shape | None
    verdict: Verdict | None
    notes: list[str]  # such as keys of rows that are not read


def inspect(settings: Recipe, endpoint: str | None, token: str | None) -> Inspection:
    """The rows as the base model's own tokenizer and template write them; a row that is too long is already a Problem here."""
    folder = _fetch_config(settings, endpoint, token)
    verdict = _verdict(settings, folder / "config.json")
    model_sizes = model_shape(settings, folder, verdict, _hub(endpoint, token))
    data = settings.data
    sources = [(data.train, "data.train"), *((source, "data.also") for source in data.also), (data.validation, "data.validation")]
    scans = [None if source.startswith(paths.HUB) else _rows(source, setting) for source, setting in sources]
    notes = [
        f"note     {setting}: {line}" for scan, (_, setting) in zip(scans, sources, strict=True) if scan for line in scan.notes.lines()
    ]
    read = [scan.rows for scan in scans if scan]
    if len(read) < len(scans) or not (folder / "tokenizer.json").is_file():
        return Inspection(None, model_sizes, verdict, notes)
    *training, held_out = read
    template = Prompt(tokens.Tokens(folder), description.stops(folder), data)
    notes += [f"note     {template.warning}"] if template.warning else []
    notes += [f"note     {setting}: {line}" for rows, (_, setting) in zip(read, sources, strict=True) for line in template.notes(rows)]
    weights = [1.0, *data.also.values()]
    portions = [WeightedRows(template.examples(rows, data, data.loss_on), weight) for rows, weight in zip(training, weights, strict=True)]
    learned = [example for portion in portions for example in portion.examples]
    portions[0] = WeightedRows(drawn(portions[0].examples, data.train_rows, settings.seed))
    scored = template.held_out(held_out, data)[: data.eval_rows]
    data = with_answer_limit(data, [*learned, *scored])
    check_scorable([example.row for example in scored], data.fields)
    sampler = Sampler(portions, settings.seed, settings.train.batch_size)
    limits.check_token_limits(folder, sampler.examples, scored, data)
    vocabulary.check_gguf(settings, description.config(folder), template, [example.row for example in [*scored, *sampler.examples]])
    return Inspection(TokenizedRows(template, sampler, scored, data), model_sizes, verdict, notes)


@dataclass(frozen=True)
class Report:
    """What a run will see and need, in lines to print."""

    details: list[str]
    notes: list[str]  # what the user must know
    price: str | None = None  # None: it is trained on this machine
    seconds: float | None = None  # planned; None where only the trainer can find out

    @property
    def lines(self) -> list[str]:
        return [*self.details, *self.notes, *([self.price] if self.price else [])]


def make_report(inspection: Inspection, run: Run, card, price: HourlyPrice | None, colour: bool) -> Report:
    """What the run will see and need; a Problem where it does not fit. `train.gradient_checkpointing=auto` is decided.

    `card` and `price` come from AWS. None stands for this machine: no price, and what fits is decided where it trains.
    """
    notes = [*map(visible, inspection.notes)]
    tokenized, sizes = inspection.rows, inspection.shape
    if tokenized is None:
        later = "tokens, memory and time are known when training starts: only the trainer can read these rows or this model"
        return Report([], [*notes, later])
    first_row = [prompt.format_first_row(tokenized.prompt, tokenized.sampler.examples, colour)]
    packing_and_serving = [_packing(inspection.verdict, run.train.pack_tokens), _serving(tokenized.prompt)]
    if sizes is None:
        unknown = f"memory   unknown: no safetensors file of {run.model.id} lists layers; what fits is known when training starts"
        return Report([*first_row, *packing_and_serving], [*notes, unknown])
    gpu = card.name if card else None
    available = fit.AvailableMemory(card.name, int(card.bytes * (1 - memory.RESERVE))) if card else None
    why = "what fits is decided where it trains"
    planned: Recipe = tokenized.settings(run)
    processes = count_processes(run, card.count) if card else 1
    if available:
        planned, why = _fit(inspection, run, available, processes)
    plan = memory.make_plan(sizes, planned, tokenized.sampler, tokenized.held_out, gpu, cards=processes)
    seconds = sum(plan.seconds.values())
    details = [
        *first_row,
        *words.lines(plan, run, sizes, gpu, available, why, run.box.disk_gb),
        *packing_and_serving,
    ]
    line = _price(seconds, price) if price else None
    if run.cloud.loopback and gpu:  # the box is emulated, and trains on this machine
        here = memory.make_plan(sizes, planned, tokenized.sampler, tokenized.held_out, None).seconds
        notes.append(f"time     here, on this machine's CPU: about {words.clock(sum(here.values()))}, at {memory.assumed_flops(None)[1]}")
    return Report(details, [*notes, *words.notes(plan)], line, None if math.isnan(seconds) else seconds)


def _serving(template: Prompt) -> str:
    stop = template.tokenizer.decode([template.stop])
    return f"serving  generation starts from the prompt that is trained and stops at {stop!r}; shown on the model before step 1"


def count_processes(run: Recipe, cards: int) -> int:
    """How many processes train on a box with so many cards; a Problem where more are asked for."""
    asked = run.train.processes
    if asked != "auto" and asked > cards:
        what = f"train.processes is {asked}, and the box has {cards} GPU{'s' * (cards > 1)}"
        raise Problem(what, "one process a GPU: `train.processes=auto`; or a box with more: `box.instance_type=TYPE`")
    return cards if asked == "auto" else asked


def _fit(inspection: "Inspection", run: Run, available: fit.AvailableMemory, cards: int) -> tuple[Recipe, str]:
    """The settings that fit, and why they are as they are; what is decided is a setting of `run` from now on."""
    tokenized, sizes, verdict, width = inspection.rows, inspection.shape, inspection.verdict, memory.number_width(available.what)
    assert tokenized and sizes
    training = fit.training_need(sizes, tokenized.sampler, width, cards)
    needs = fit.Needs(training, fit.scoring_need(sizes, tokenized.held_out, width, cards), available, cards)
    able, stored = verdict is None or verdict.gradient_checkpointing, "as its files are" if sizes.stored is not None else None
    trained, scored, why = fit.decide(tokenized.settings(run), needs, tokenized.sampler.longest, sizes.counted, able, stored)
    run.train.gradient_checkpointing, run.train.fsdp = trained.train.gradient_checkpointing, trained.train.fsdp
    return scored, why


def estimate_cards(inspection: Inspection, run: Run, cards: dict[str, tuple[str, int, int]]) -> dict[str, tuple[float, bool]]:
    """For each type with its card, its bytes and how many there are: the planned seconds (nan where the card's speed is not known), and
    whether the run fits into it."""
    return {
        kind: _estimate_card(inspection, copy.deepcopy(run), fit.AvailableMemory(name, int(size * (1 - memory.RESERVE))), count)
        for kind, (name, size, count) in cards.items()
    }


def _estimate_card(inspection: Inspection, run: Run, available: fit.AvailableMemory, count: int) -> tuple[float, bool]:
    tokenized, sizes = inspection.rows, inspection.shape
    if tokenized is None or sizes is None:
        return math.nan, True  # only the trainer can read these rows, or the model's sizes
    try:
        processes = count_processes(run, count)
        planned, _ = _fit(inspection, run, available, processes)
    except Problem:
        return math.nan, False
    plan = memory.make_plan(sizes, planned, tokenized.sampler, tokenized.held_out, available.what, cards=processes)
    return sum(plan.seconds.values()), True


def _price(seconds: float, price: HourlyPrice) -> str:
    if price.per_hour is None:
        return f"price    unknown: AWS has no price of {price.instance_type}"
    rate = f"${price.per_hour:.4f} an hour"
    if math.isnan(seconds):
        return f"price    {rate} of {price.instance_type} ({price.source}); the time is unknown"
    total = figures.money(seconds / 3600 * price.per_hour)
    return f"price    about {total} for this run: {words.clock(seconds)} of {price.instance_type} at {rate} ({price.source})"


def _fetch_config(settings: Recipe, endpoint: str | None, token: str | None) -> Path:
    """The folder of the small files that describe the base model; its weights are not among them."""
    disable_progress_bars()  # a line for each of five small files says nothing
    if Path(settings.model.id).is_dir():
        return Path(settings.model.id)
    name, revision = settings.model.id, settings.model.revision
    with explained(name, endpoint):
        info = _hub(endpoint, token).model_info(name, revision=revision, files_metadata=True)
        for file in info.siblings or []:
            if file.rfilename in ALLOW_PATTERNS:
                description.bound(file.rfilename, file.size or 0)
        return Path(snapshot_download(name, revision=info.sha, allow_patterns=ALLOW_PATTERNS, endpoint=endpoint, token=token or False))


def _verdict(settings: Recipe, config: Path) -> Verdict | None:
    """How the model is trained; a Problem where it cannot be."""
    if not config.is_file():
        return None
    values = description.config(config.parent)
    architecture.check_quantised_once(settings, values)
    verdict = architecture.verdict(settings.model.id, values)
    architecture.check_gradient_checkpointing(settings, verdict)
    architectures.check_gguf(settings, values)
    return verdict


def model_shape(settings: Recipe, folder: Path, verdict: Verdict | None, hub: HfApi) -> Shape | None:
    """The model's sizes, as its safetensors files list its tensors; `folder` has its config.json. None where they are not known."""
    if verdict is None:
        return None
    if Path(settings.model.id).is_dir():
        tensors = shape.of_folder(Path(settings.model.id))
    else:
        tensors = _hub_tensors(settings.model.id, folder.name, hub.endpoint, hub.token)
    return shape.shape(tensors, description.config(folder), text_only=verdict.of.endswith("ForCausalLM"))


@lru_cache(maxsize=4)  # asked for the disk and for the memory
def _hub_tensors(name: str, commit: str, endpoint: str, token: str | bool) -> dict[str, shape.Tensor]:
    """The tensors that the files on the Hub list: of each file only its beginning is fetched. None where it has no safetensors."""
    try:
        with explained(name, endpoint):
            files = _hub(endpoint, token or None).get_safetensors_metadata(name, revision=commit).files_metadata.values()
        return {name: shape.tensor(one.shape, one.dtype) for file in files for name, one in file.tensors.items()}
    except NotASafetensorsRepoError:
        return {}
    except (SafetensorsParsingError, ValueError, TypeError, AttributeError, KeyError) as error:  # the others of an index of another shape
        raise shape.no_safetensors(f"a file of {name}") from error


def _packing(verdict: Verdict | None, pack_tokens: int | None) -> str:
    if verdict and verdict.outcome == "alone":
        return f"packing  rows are trained one at a time: {verdict.why}"
    if not pack_tokens:
        return "packing  rows are trained one at a time: train.pack_tokens=null"
    return f"packing  up to {pack_tokens} tokens at once, if the model shows before step 1 that rows do not see each other"


def _rows(source: str, setting: str) -> rows.Scan | None:
    """The file's rows, or a Problem with the first thing wrong with it; None for Parquet that only the trainer can read."""
    path = paths.rows_file(source, setting)
    if kind(source) == ".parquet" and find_spec("pyarrow") is None:
        return None
    try:
        return rows.scan_or_raise(path, source)
    except rows.RowError as error:
        raise Problem(str(error), data_check_hint(setting, source), "bad_data") from error
    except OSError as error:
        what = f"{setting} names {source}, which cannot be read: {error.strerror or error}"
        raise Problem(what, f"`ls -l {shlex.quote(str(path))}`", "bad_data") from error


def _check_fields(path: str, setting: str, scanned: list[rows.Row], fields: list[str] | None) -> None:
    """Every field that will be scored must occur, and only answers that are objects have fields."""
    if fields is None:
        return
    text = next((row for row in scanned if row.output is None), None)
    if text:
        what = f"{path}: row {text.id} answers with plain text, and data.fields asks for keys of a JSON answer"
        raise Problem(what, "make every output an object, or score free text: `data.fields=null`", "bad_data")
    present = {key for row in scanned for key in row.output or ()}
    unknown = [name for name in fields if name not in present]
    if unknown:
        what = f"no row of {path} ({setting}) has the field {unknown[0]!r} in its output"
        raise Problem(what, f"the outputs have: `{rows.fields_override(sorted(present))}`", "bad_data")


def _check_held_out(data: Data, hashes: dict[str, str | None]) -> None:
    """A Problem where a source of training rows is the held-out one, under any name."""
    held_out = data.validation
    same = [source for source in (data.train, *data.also) if source == held_out or (hashes[source] or source) == hashes[held_out]]
    if same:
        setting = "data.train" if data.train in same else "data.also"
        what = f"{setting} and data.validation are the same rows ({held_out}): the scores would mean nothing"
        raise Problem(what, "hold rows out of training: `data.validation=OTHER.jsonl`", "bad_data")


def _check_hub_dataset(hub: HfApi, source: str, endpoint: str | None) -> None:
    """Make sure that `hub:<dataset id>:<split>` exists for this token; its rows are not hashed here."""
    _, name, *split = source.split(":")
    if not name or len(split) != 1 or not split[0]:
        raise Problem(f"cannot read the dataset `{source}`", "write `hub:OWNER/NAME:SPLIT`, such as `hub:owner/notes:train`", "bad_data")
    with explained(name, endpoint, "datasets/"):
        hub.auth_check(name, repo_type="dataset")


def check_model(hub: HfApi, settings: Recipe, endpoint: str | None) -> dict:
    """The commit of the base model's revision, once its files may be read, and the disk space of this run in GB."""
    name, revision = settings.model.id, settings.model.revision
    with explained(name, endpoint):
        info = hub.model_info(name, revision=revision, files_metadata=True)
        if info.gated:  # a gated model's description is public, its files are not
            _check_gate(hub, name)
        stored = {file.rfilename: file.size or 0 for file in info.siblings or []}
        model_sizes = None
        if "config.json" in stored:
            description.bound("config.json", stored["config.json"])
            config = Path(hub.hf_hub_download(name, "config.json", revision=info.sha))
            model_sizes = model_shape(settings, config.parent, _verdict(settings, config), hub)
        weights = sum(size for file, size in stored.items() if file.endswith(".safetensors"))
        return {"model_revision": info.sha, "need_gb": math.ceil(memory.disk_bytes(model_sizes, settings, weights) / 1e9)}


def _check_gate(hub: HfApi, name: str) -> None:
    try:
        hub.auth_check(name)
    except HfHubHTTPError as error:
        problem = permissions.gated_repo_problem(hub, name)
        if problem is None:
            raise
        raise problem from error
