"""What can be known to fail before anything is paid for: checked on the laptop, without torch."""

import math
from pathlib import Path

from huggingface_hub import HfApi

from conf.problem import Problem
from conf.schema import Data, Recipe
from data import rows
from trainer import files
from trainer.hub import explained

ROOM = 1.3  # of the weights: themselves, checkpoints and the adapter
KINDS = (".jsonl", ".csv", ".parquet")


def check(settings: Recipe, endpoint: str | None, token: str | None) -> dict:
    """Facts about the rows and the base model that a run needs, or a Problem with the first thing that would stop it.

    CSV, Parquet and Hub datasets are read by the trainer; here they need only exist, and their number of rows is None.
    """
    hub = HfApi(endpoint=endpoint, token=token or False)  # False: no login that happens to lie about is used
    facts = {}
    for name in ("train", "validation"):
        source = getattr(settings.data, name)
        if source.startswith("hub:"):
            facts |= {f"{name}_rows": None, f"{name}_sha256": _hub_dataset(hub, source, endpoint)}
        else:
            facts |= {f"{name}_rows": _rows(Path(source), f"data.{name}", settings.data), f"{name}_sha256": files.digest(Path(source))}
    _apart(settings.data, facts)
    return facts | _model(hub, settings.model.id, settings.model.revision, endpoint)


def _rows(path: Path, setting: str, data: Data) -> int | None:
    if not path.is_file():
        raise Problem(f"{setting} names {path}, and there is no such file", f"give another: `{setting}=FILE.jsonl`", "bad_data")
    if path.suffix not in KINDS:
        raise Problem(
            f"{setting} names {path}, which is none of {', '.join(KINDS)}", "write the rows as JSON Lines, one object a line", "bad_data"
        )
    if path.suffix != ".jsonl":
        return None
    try:
        found = rows.read(path)
    except rows.RowError as error:
        raise Problem(str(error), f"see what else is wrong: `inv data.check -- {setting}={path}`", "bad_data") from error
    _fields(path, setting, found, data.fields)
    return len(found)


def _fields(path: Path, setting: str, found: list[rows.Row], fields: list[str] | None) -> None:
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
        raise Problem(what, f"the outputs have: `data.fields=[{','.join(sorted(known))}]`", "bad_data")


def _apart(data: Data, facts: dict) -> None:
    same_file = facts["train_sha256"] and facts["train_sha256"] == facts["validation_sha256"]
    if same_file or data.train == data.validation:
        what = f"data.train and data.validation are the same rows ({data.validation}): the scores would tell nothing"
        raise Problem(what, "hold rows out of training: `data.validation=OTHER.jsonl`", "bad_data")


def _hub_dataset(hub: HfApi, source: str, endpoint: str | None) -> None:
    """Make sure that `hub:<dataset id>:<split>` exists for this token; its rows have no hash of ours."""
    _, name, *split = source.split(":")
    if not name or len(split) != 1 or not split[0]:
        raise Problem(f"cannot read the dataset `{source}`", "write `hub:OWNER/NAME:SPLIT`, such as `hub:owner/notes:train`", "bad_data")
    with explained(name, endpoint, "datasets/"):
        hub.auth_check(name, repo_type="dataset")


def _model(hub: HfApi, name: str, revision: str, endpoint: str | None) -> dict:
    """The commit that the base model's revision stands for, once its files may be read; and the room that a run of it takes."""
    with explained(name, endpoint):
        info = hub.model_info(name, revision=revision, files_metadata=True)
        if info.gated:  # anyone may read about a gated model; its files are another matter
            hub.auth_check(name)
        weights = sum(file.size or 0 for file in info.siblings or [] if file.rfilename.endswith(".safetensors"))
        return {"model_revision": info.sha, "need_gb": math.ceil(weights * ROOM / 1e9 + 1)}
