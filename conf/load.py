"""From YAML and overrides to typed settings, and back to the file that reproduces a run."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from difflib import get_close_matches
from enum import Enum
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException, ValidationError

from conf import caller, schema
from conf.problem import Problem

FOLDER = Path(__file__).parent
LOCAL = FOLDER / "local.yaml"
# Settings with keys that are not ours: PEFT's, the optimizer's and the Dockerfile's, which check them, and names of files.
OPEN = ("lora.options", "train.optimizer_options", "data.also=", "cloud.build_args")
BESIDES = ("run_id", "runs", "provenance", "publish", "cloud", "box", "cost")  # none of them changes what is computed
PARAMETER = re.compile(r"\$\{ssm:(?P<name>[^,}]+)(?:,(?P<default>[^}]*))?\}")
# Makes `python -m trainer --config-dir RUN --config-name config` write nothing but the run itself.
HYDRA = """\
defaults:
  - _self_
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
hydra: {output_subdir: null, run: {dir: .}}
"""

Fetch = Callable[[list[str], dict], dict[str, str]]  # names of Parameter Store, and the cloud's settings as far as they need none


def overrides(argv: list[str]) -> list[str]:
    """The words behind `--`, as the shell passed them."""
    return argv[argv.index("--") + 1 :] if "--" in argv else []


def opened(words: list[str]) -> list[str]:
    """The overrides, with leave to add to the settings that hold another library's own options."""
    return [f"++{word}" if word.startswith(OPEN) else word for word in words]


def load(words: list[str], fetch: Fetch | None = None, local: Path = LOCAL) -> schema.Run:
    """The settings of a run. `fetch` answers names of Parameter Store; without it a default or `<ssm:NAME>` stands for the value.

    `none` in Parameter Store is null: a parameter there cannot be empty.
    """
    words = _with_local(words, local)
    composed = _compose(words)
    _register(composed, fetch)
    return _typed(schema.Run, composed)


def recipe(composed: DictConfig) -> schema.Recipe:
    """The trainer's part of a composed or saved configuration, checked."""
    kept = {key: value for key, value in composed.items_ex(resolve=False) if key not in ("cloud", "box", "cost", "hydra")}
    return _typed(schema.Recipe, OmegaConf.create(kept))


def dump(run: schema.Recipe) -> str:
    """The text of a run's `config.yaml`: every value resolved, loadable by Hydra as it stands."""
    return HYDRA + yaml.safe_dump(_plain(run), sort_keys=False, allow_unicode=True)


def read(text: str) -> schema.Run:
    """The settings that a run's `config.yaml` holds."""
    values = {key: value for key, value in yaml.safe_load(text).items() if key not in ("hydra", "defaults")}
    return _typed(schema.Run, OmegaConf.create(values))


def fingerprint(run: schema.Recipe) -> str:
    """The sha256 of all that decides what a run computes: two runs with one fingerprint are the same run.

    Where activations come from changes no step, and is decided anew for each card: another one goes on with the run.
    """
    decisive = {key: value for key, value in _plain(run).items() if key not in BESIDES}
    decisive["train"] = {key: value for key, value in decisive["train"].items() if key != "recompute"}
    decisive["merged"] = run.publish.merged  # it is made and scored before the run is sealed
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _with_local(words: list[str], local: Path) -> list[str]:
    # An explicit cloud=twin is hermetic: nothing of the user's own defaults may reach it.
    if "cloud=twin" in words or not local.exists():
        return words
    own = yaml.safe_load(local.read_text(encoding="utf-8")) or {}
    if not isinstance(own, dict):
        raise Problem(f"{local.name} is not a mapping of settings", "write lines such as `cloud: aws`, or remove the file")
    given = {word.split("=", 1)[0].lstrip("+~") for word in words}
    return [word for word in _flat(own) if word.split("=", 1)[0] not in given] + words


def _flat(values: dict, path: str = "") -> list[str]:
    words = []
    for key, value in values.items():
        if isinstance(value, dict):
            words += _flat(value, f"{path}{key}.")
        else:
            words.append(f"{path}{key}={json.dumps(value) if path or not isinstance(value, str) else value}")
    return words


def _compose(words: list[str]) -> DictConfig:
    OmegaConf.register_new_resolver("caller", caller.of_a_box, replace=True)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(FOLDER.resolve()), version_base="1.3"):
            return compose("main", overrides=opened(words))
    except MissingConfigException as error:
        raise _no_such_choice(error) from error
    except OverrideParseException as error:
        raise Problem(
            f"cannot read the override `{error.override}`",
            "quote values that hold '=', ',' or spaces: inv train -- 'data.train=\"a=b.jsonl\"'",
        ) from error
    except (ConfigCompositionException, HydraException, ValueError) as error:
        raise _bad_override(error, words) from error


def _no_such_choice(error: MissingConfigException) -> Problem:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    names = ", ".join(name for name in error.options or [] if not name.startswith("_"))  # those are parts of others
    hint = f"choose one of: {names}"
    if group == "model":
        hint += "; or name any model of the Hub: `model.id=owner/name`"
    if group == "data":
        hint += f"; or write conf/data/{choice}.yaml; or name your files: `data.train=FILE data.validation=FILE`"
    return Problem(f"there is no {group or 'config'} `{choice}`", hint)


def _bad_override(error: Exception, words: list[str]) -> Problem:
    reason = str(error.__cause__ or error).splitlines()
    key = next((line.split(":", 1)[1].strip() for line in reason if line.strip().startswith("full_key:")), "")
    if key or "not in struct" in str(error):
        return _no_such_setting(key or str(error).split("'")[1])
    group = re.search(r"Could not override '([^'@]+)", str(error))
    if group:
        return _no_such_setting(group.group(1))
    if "Ambiguous value" in str(error):
        return Problem(str(error).splitlines()[0], "one value each; several are a sweep: `inv sweep -- lora.r=8,16`")
    return Problem(f"cannot use the overrides `{' '.join(words)}`: {str(error).splitlines()[0]}", "`KEY=VALUE` for each, as in conf/")


def _no_such_setting(key: str) -> Problem:
    known = _paths(schema.Run)
    close = get_close_matches(key, known, n=1, cutoff=0.6)
    hint = f"did you mean `{close[0]}`?" if close else f"each is a line in conf/, with its effect: `grep -rn {key.split('.')[-1]} conf/`"
    return Problem(f"there is no setting `{key}`", hint)


def _paths(kind: type, prefix: str = "") -> list[str]:
    found = []
    for name, entry in kind.__dataclass_fields__.items():
        found.append(prefix + name)
        if hasattr(entry.type, "__dataclass_fields__"):
            found += _paths(entry.type, f"{prefix}{name}.")
    return found


def _register(composed: DictConfig, fetch: Fetch | None) -> None:
    """Make `${ssm:NAME,default}` answer from Parameter Store, asked once for all names that occur."""
    wanted = {found["name"].strip(): found["default"] for found in PARAMETER.finditer(OmegaConf.to_yaml(composed, resolve=False))}
    values = fetch(sorted(wanted), _known(composed)) if fetch and wanted else {}
    missing = [name for name, default in wanted.items() if default is None and name not in values]
    if fetch and missing:
        names = ", ".join(sorted(missing))
        first = f"aws ssm put-parameter --type String --name {sorted(missing)[0]} --value VALUE"
        raise Problem(f"Parameter Store has no value for {names}", f"`inv init` sets them up, or set each one, for example: {first}")

    def answer(name: str, default: str | None = None) -> str | None:
        value = values.get(name, f"<ssm:{name}>" if default is None else default)
        return None if str(value) == "none" else value

    OmegaConf.register_new_resolver("ssm", answer, replace=True)


def _known(composed: DictConfig) -> dict:
    """The cloud's settings that do not come from Parameter Store: which cloud to ask, and in which region."""
    plain = OmegaConf.to_container(composed.cloud, resolve=False)
    return {key: value for key, value in plain.items() if not (isinstance(value, str) and PARAMETER.search(value))}


def _typed(kind: type, composed: DictConfig):
    """`composed` as a `kind`, or a Problem with the path of the setting that cannot be."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(kind), composed)
        OmegaConf.resolve(merged)
        return OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        raise _no_such_setting(error.full_key or str(error.key)) from error
    except MissingMandatoryValue as error:
        raise Problem(f"`{error.full_key}` has no value", f"give one: `{error.full_key}=VALUE`") from error
    except ValidationError as error:
        what = str(error).splitlines()[0]
        raise Problem(f"`{error.full_key}`: {what}", f"see the comment beside `{error.full_key}` in conf/schema.py") from error
    except OmegaConfBaseException as error:
        raise Problem(str(error).splitlines()[0], "see conf/schema.py for the types of all settings") from error
    except ValueError as error:
        what, _, hint = str(error).partition("; ")
        raise Problem(what, hint or "see conf/schema.py for the rules") from error


def _plain(run: schema.Recipe) -> dict:
    def simple(value):
        if isinstance(value, Enum):
            return value.name
        if isinstance(value, dict):
            return {key: simple(entry) for key, entry in value.items()}
        return [simple(entry) for entry in value] if isinstance(value, list) else value

    return simple(asdict(run))
