"""What can be known to fail before anything is paid for: checked on the laptop, without torch."""

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
from conf.problem import Problem
from conf.schema import Box, Data, Recipe, Run
from conf.text.visible import visible
from data import rows
from data.readers.tables import kind
from trainer import files
from trainer.estimate import architecture, fit, limits, memory, shape
from trainer.estimate import summary as words
from trainer.estimate.architecture import Verdict
from trainer.estimate.shape import Shape
from trainer.hub import permissions
from trainer.hub_errors import explained
from trainer.record import figures
from trainer.rows import description, prompt, tokens
from trainer.rows.prompt import Example, Prompt
from trainer.rows.rows import check_with, scorable
from trainer.rows.sampler import Order, Portion

SMALL = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]


def prove(
    run: Run, endpoint: str | None, token: str | None, card, hourly: tuple | None, colour: bool, seen: "Look | None" = None
) -> "tuple[dict, Outlook]":
    """`check` and `outlook`: facts for the run, and lines for people; or a Problem with the first thing that would stop it."""
    facts = check(run, endpoint, token)
    made = outlook(seen or look(run, endpoint, token), run, card, hourly, colour)
    place = facts["repository"]
    allowed = (
        f"the token may write to {place}, where the run can be published" if place else "no token here: nobody knows if it may publish"
    )
    return facts, dataclasses.replace(made, details=[*made.details, f"hub      {allowed}"])


def check(settings: Run, endpoint: str | None, token: str | None) -> dict:
    """Facts about the rows, the token and the base model that a run needs, or a Problem with the first thing that would stop it.

    Datasets of the Hub, and Parquet where pyarrow is missing, are read by the trainer; here they need only exist, and their number of
    rows is None.
    """
    hub = _hub(endpoint, token)
    facts = tables(settings.data, endpoint, token)
    wanted = settings.publish.repository or settings.cloud.hub_repository
    permissions.allowed(permissions.place(wanted, settings.name, settings.kind.value, "OWNER"), settings.publish.merged)
    facts["repository"] = permissions.check(hub, wanted, settings.name, settings.kind.value, settings.publish.merged) if token else None
    return facts | model(hub, settings, endpoint)


def tables(data: Data, endpoint: str | None, token: str | None) -> dict:
    """How many rows there are to train on and to score, and the files' sha256; every row of theirs can be used."""
    facts, hashes = {}, {}
    for name in ("train", "validation"):
        source = getattr(data, name)
        count, hashes[source] = _table(source, f"data.{name}", data, endpoint, token)
        facts |= {f"{name}_rows": count, f"{name}_sha256": hashes[source]}
    for source in data.also:
        _, hashes[source] = _table(source, "data.also", data, endpoint, token)
    _apart(data, hashes)
    return facts


def _table(source: str, setting: str, data: Data, endpoint: str | None, token: str | None) -> tuple[int | None, str | None]:
    if source.startswith("hub:"):
        return None, _hub_dataset(_hub(endpoint, token), source, endpoint)
    found = _rows(source, setting)
    sha256 = files.digest(paths.resolve(source))
    if found is None:
        return None, sha256
    _fields(source, setting, found.rows, data.fields)
    return len(found.rows), sha256


def _hub(endpoint: str | None, token: str | None) -> HfApi:
    return HfApi(endpoint=endpoint, token=token or False)  # False: no login that happens to lie about is used


@dataclass(frozen=True)
class Look:
    """What the model will see, in its own tokens, and its sizes. None where only the trainer can tell."""

    prompt: Prompt | None
    order: Order | None
    held_out: list[Example]
    shape: Shape | None
    verdict: Verdict | None
    notes: list[str]  # about keys of rows that nobody reads, and the like


def look(settings: Recipe, endpoint: str | None, token: str | None) -> Look:
    """The rows as the base model's own tokenizer and template write them; a row that is too long is a Problem here already."""
    folder = _description(settings, endpoint, token)
    verdict = _verdict(settings, folder / "config.json")
    made = sizes(settings, folder, verdict, _hub(endpoint, token))
    data = settings.data
    named = [(data.train, "data.train"), *((source, "data.also") for source in data.also), (data.validation, "data.validation")]
    scans = [None if source.startswith("hub:") else _rows(source, setting) for source, setting in named]
    notes = [
        f"note     {setting}: {line}" for found, (_, setting) in zip(scans, named, strict=True) if found for line in found.notes.lines()
    ]
    if None in scans or not (folder / "tokenizer.json").is_file():
        return Look(None, None, [], made, verdict, notes)
    *training, held_out = [found.rows for found in scans]
    template = Prompt(tokens.Tokens(folder), description.stops(folder), data)
    notes += [f"note     {template.warning}"] if template.warning else []
    notes += [
        f"note     {setting}: {line}" for found, (_, setting) in zip(scans, named, strict=True) for line in template.notes(found.rows)
    ]
    weights = [1.0, *data.also.values()]
    portions = [Portion(template.examples(found, data, data.loss_on), weight) for found, weight in zip(training, weights, strict=True)]
    scored = template.held_out(held_out, data)[: data.eval_rows]
    scorable([example.row for example in scored], data.fields)
    order = Order(portions, settings.seed, settings.train.batch_size)
    limits.check(folder, order.examples, scored, data)
    return Look(template, order, scored, made, verdict, notes)


@dataclass(frozen=True)
class Outlook:
    """What a run will see and need, in lines for people."""

    details: list[str]
    notes: list[str]  # what has to be known
    price: str | None = None  # None: it is trained on this machine
    seconds: float | None = None  # planned; None where only the trainer can tell

    @property
    def lines(self) -> list[str]:
        return [*self.details, *self.notes, *([self.price] if self.price else [])]


def outlook(seen: Look, run: Run, card, hourly: tuple | None, colour: bool) -> Outlook:
    """What the run will see and need; a Problem where it does not fit. `train.gradient_checkpointing=auto` is decided.

    `card` and `hourly` are as AWS tells them; None: this machine, for nothing, and what fits is decided where it trains.
    """
    notes = [*map(visible, seen.notes)]
    if seen.prompt is None:
        later = "tokens, memory and time are told when training starts: only there can these rows or this model be read"
        return Outlook([], [*notes, later])
    shown = [prompt.show(seen.prompt, seen.order.examples, colour)]
    if seen.shape is None:
        unknown = f"memory   unknown: no safetensors file of {run.model.id} lists tensors of layers; what fits is told when training starts"
        return Outlook([*shown, *_done(seen, run)], [*notes, unknown])
    gpu = card.name if card else None
    room = fit.Room(card.name, int(card.bytes * (1 - memory.RESERVE))) if card else None
    why = "what fits is decided where it trains"
    planned: Recipe = run
    if room:
        run.train.gradient_checkpointing, why = _settled(seen, run, room)
        planned = _scored(seen, run, room)
    made = memory.make(seen.shape, planned, seen.order, seen.held_out, gpu)
    seconds = sum(made.seconds.values())
    details = [*shown, *words.lines(made, run, seen.shape, gpu, room, why, run.box.disk_gb), *_done(seen, run)]
    price = _price(seconds, hourly, run.box) if hourly else None
    return Outlook(details, [*notes, *words.notes(made)], price, None if math.isnan(seconds) else seconds)


def _done(seen: Look, run: Run) -> list[str]:
    """How rows are trained, and how the model is served."""
    stop = seen.prompt.tokenizer.decode([seen.prompt.stop])
    serving = f"serving  generation starts from the prompt that is trained and stops at {stop!r}; shown on the model before step 1"
    return [_packing(seen.verdict, run.train.pack_tokens), serving]


def _settled(seen: Look, run: Run, room: fit.Room) -> tuple[str, str]:
    needs = fit.needs_of(seen.shape, seen.order, memory.number_width(room.what))
    able = seen.verdict is None or seen.verdict.gradient_checkpointing
    return fit.settle(run, needs, room, seen.order.longest, seen.shape.like_llama, able)


def _scored(seen: Look, run: Run, room: fit.Room) -> Recipe:
    return fit.at_once(run, fit.scoring_of(seen.shape, seen.held_out, memory.number_width(room.what)), room)


def needs(seen: Look, run: Run, cards: dict[str, int]) -> dict[str, tuple[float, bool]]:
    """For each card and its bytes: the planned seconds (nan where its speed is not known), and whether the run fits into it."""
    return {name: _on(seen, copy.deepcopy(run), fit.Room(name, int(size * (1 - memory.RESERVE)))) for name, size in cards.items()}


def _on(seen: Look, run: Run, room: fit.Room) -> tuple[float, bool]:
    if seen.order is None or seen.shape is None:
        return math.nan, True  # only the trainer can read these rows, or tell what the model takes
    try:
        run.train.gradient_checkpointing, _ = _settled(seen, run, room)
        planned = _scored(seen, run, room)
    except Problem:
        return math.nan, False
    return sum(memory.make(seen.shape, planned, seen.order, seen.held_out, room.what).seconds.values()), True


def _price(seconds: float, hourly: tuple[float | None, str | None], box: Box) -> str:
    per_hour, source = hourly
    if per_hour is None:
        return f"price    unknown: nobody told the price of {box.instance_type}"
    if math.isnan(seconds):
        return f"price    ${per_hour:.4f} an hour of {box.instance_type} ({source}); the time is unknown"
    total = figures.money(seconds / 3600 * per_hour)
    return f"price    about {total}: {words.clock(seconds)} of {box.instance_type}, ${per_hour:.4f} an hour ({source})"


def _description(settings: Recipe, endpoint: str | None, token: str | None) -> Path:
    """The folder of the small files that describe the base model; its weights are not among them."""
    disable_progress_bars()  # a line for each of five small files says nothing
    if Path(settings.model.id).is_dir():
        return Path(settings.model.id)
    name, revision = settings.model.id, settings.model.revision
    with explained(name, endpoint):
        info = _hub(endpoint, token).model_info(name, revision=revision, files_metadata=True)
        for file in info.siblings or []:
            if file.rfilename in SMALL:
                description.bound(file.rfilename, file.size or 0)
        return Path(snapshot_download(name, revision=info.sha, allow_patterns=SMALL, endpoint=endpoint, token=token or False))


def _verdict(settings: Recipe, config: Path) -> Verdict | None:
    """What training makes of the model; a Problem where it cannot be trained."""
    if not config.is_file():
        return None
    values = description.config(config.parent)
    architecture.quantised_once(settings, values)
    found = architecture.verdict(settings.model.id, values)
    architecture.computes_again(settings, found)
    return found


def sizes(settings: Recipe, folder: Path, verdict: Verdict | None, hub: HfApi) -> Shape | None:
    """The model's sizes, as its safetensors files list its tensors; `folder` has its config.json. None where they cannot be told."""
    if verdict is None:
        return None
    if Path(settings.model.id).is_dir():
        tensors = shape.of_folder(Path(settings.model.id))
    else:
        tensors = _listed(settings.model.id, folder.name, hub.endpoint, hub.token)
    return shape.shape(tensors, description.config(folder), text_only=verdict.of.endswith("ForCausalLM"))


@lru_cache(maxsize=4)  # asked for the disk and for the memory
def _listed(name: str, commit: str, endpoint: str, token: str | bool) -> dict[str, shape.Tensor]:
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
    path = paths.resolve(source)
    if not paths.is_file(path):
        raise Problem(f"{setting} names {source}, and there is no such file", f"give another: `{setting}=FILE.jsonl`", "bad_data")
    if kind(source) == ".parquet" and find_spec("pyarrow") is None:
        return None
    try:
        return rows.usable(path, source)
    except rows.RowError as error:
        raise Problem(str(error), check_with(setting, source), "bad_data") from error
    except OSError as error:
        what = f"{setting} names {source}, which cannot be read: {error.strerror or error}"
        raise Problem(what, f"`ls -l {shlex.quote(str(path))}`", "bad_data") from error


def _fields(path: str, setting: str, found: list[rows.Row], fields: list[str] | None) -> None:
    """Every field that will be scored must occur, and only answers that are objects have fields."""
    if fields is None:
        return
    text = next((row for row in found if row.output is None), None)
    if text:
        what = f"{path}: row {text.id} answers with plain text, and data.fields asks for keys of a JSON answer"
        raise Problem(what, "make every output an object, or score free text: `data.fields=null`", "bad_data")
    known = {key for row in found for key in row.output}
    unknown = [name for name in fields if name not in known]
    if unknown:
        what = f"no row of {path} ({setting}) has the field {unknown[0]!r} in its output"
        raise Problem(what, f"the outputs have: `{rows.fields_word(sorted(known))}`", "bad_data")


def _apart(data: Data, hashes: dict[str, str | None]) -> None:
    """No source of rows to train on may be the held-out one, whatever it is called."""
    held_out = data.validation
    same = [source for source in (data.train, *data.also) if source == held_out or (hashes[source] or source) == hashes[held_out]]
    if same:
        setting = "data.train" if data.train in same else "data.also"
        what = f"{setting} and data.validation are the same rows ({held_out}): the scores would tell nothing"
        raise Problem(what, "hold rows out of training: `data.validation=OTHER.jsonl`", "bad_data")


def _hub_dataset(hub: HfApi, source: str, endpoint: str | None) -> None:
    """Make sure that `hub:<dataset id>:<split>` exists for this token; its rows have no hash of ours."""
    _, name, *split = source.split(":")
    if not name or len(split) != 1 or not split[0]:
        raise Problem(f"cannot read the dataset `{source}`", "write `hub:OWNER/NAME:SPLIT`, such as `hub:owner/notes:train`", "bad_data")
    with explained(name, endpoint, "datasets/"):
        hub.auth_check(name, repo_type="dataset")


def model(hub: HfApi, settings: Recipe, endpoint: str | None) -> dict:
    """The commit that the base model's revision stands for, once its files may be read; and the room that this run of it takes."""
    name, revision = settings.model.id, settings.model.revision
    with explained(name, endpoint):
        info = hub.model_info(name, revision=revision, files_metadata=True)
        if info.gated:  # anyone may read about a gated model; its files are another matter
            _past_the_gate(hub, name)
        stored = {file.rfilename: file.size or 0 for file in info.siblings or []}
        made = None
        if "config.json" in stored:
            description.bound("config.json", stored["config.json"])
            config = Path(hub.hf_hub_download(name, "config.json", revision=info.sha))
            made = sizes(settings, config.parent, _verdict(settings, config), hub)
        weights = sum(size for file, size in stored.items() if file.endswith(".safetensors"))
        return {"model_revision": info.sha, "need_gb": math.ceil(memory.disk(made, settings, weights) / 1e9)}


def _past_the_gate(hub: HfApi, name: str) -> None:
    try:
        hub.auth_check(name)
    except HfHubHTTPError as error:
        problem = permissions.gate(hub, name)
        if problem is None:
            raise
        raise problem from error
