"""From YAML and overrides to typed settings, and back to the file that reproduces a run."""

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException, ValidationError

from conf import override_words, paths, renamed, schema, setting_types, setting_values, yaml_file
from conf.problem import Problem
from conf.process import caller
from conf.setting_types import Kind

FOLDER = setting_types.FOLDER
LOCAL = FOLDER / "local.yaml"
# Settings with keys that are not ours: PEFT's, the optimizer's and the Dockerfile's, which check them, and names of files.
OPEN = ("lora.options", "train.optimizer_options", "data.also=", "data.chat_template_kwargs", "cloud.build_args")
BESIDES = ("run_id", "runs", "provenance", "publish", "cloud", "box", "cost")  # none of them changes what is computed
PARAMETER = re.compile(r"\$\{ssm:(?P<name>[^,}]+)(?:,(?P<default>[^}]*))?\}")
# What each run made before 2026-11-29 carries for Hydra, which composed it on the box then; it says nothing of the run.
FORMER = {
    "defaults": ["_self_", {"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}],
    "hydra": {"output_subdir": None, "run": {"dir": "."}},
}
COMMANDS = {"_target_", "_args_", "_partial_", "_recursive_", "_convert_"}  # Hydra's words for what is to be called

# What a rule of the schema says: what is wrong, and behind a semicolon what to do. In quotes stands a value, which may be anybody's.
RULE = re.compile(r"""((?>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^;])+?); (.*)""", re.DOTALL)

Fetch = Callable[[list[str], dict], dict[str, str]]  # names of Parameter Store, and the cloud's settings as far as they need none


def spelled(given: list[str]) -> list[str]:
    """The overrides as Hydra must have them: text as it was typed, files named from the repository, and leave to add to the settings
    that hold another library's own options."""
    return _leave(override_words.spelled(given, Path.cwd()))


def _leave(spelled: list[str]) -> list[str]:
    return [f"++{word}" if word.startswith(OPEN) else word for word in spelled]


def load(given: list[str], fetch: Fetch | None = None, local: Path = LOCAL) -> schema.Run:
    """The settings of a run. `fetch` answers names of Parameter Store; without it a default or `<ssm:NAME>` stands for the value.

    `none` in Parameter Store is null: a parameter there cannot be empty.
    """
    given = renamed.words(given)
    composed = _compose(_defaults(given, local), given)
    _register(composed, fetch)
    _read_template(composed)
    return _typed(schema.Run, composed)


def recipe(composed: DictConfig) -> schema.Recipe:
    """The trainer's part of a composed configuration, checked."""
    _read_template(composed)
    return _typed(schema.Recipe, _of_trainer(composed))


def _of_trainer(whole: DictConfig) -> DictConfig:
    return OmegaConf.create({key: value for key, value in whole.items_ex(resolve=False) if key not in ("cloud", "box", "cost", "hydra")})


def dump(run: schema.Recipe) -> str:
    """The text of a run's `config.yaml`: every value resolved, plain data for `read` and `saved`."""
    return yaml_file.write(yaml_file.escaped(_plain(run)))


def read(text: bytes | str, name: str = "config.yaml of the run") -> schema.Run:
    """The settings that a run's `config.yaml` holds."""
    return _of_a_run(schema.Run, OmegaConf.create(values(text, name)), name)


def saved(text: bytes | str, name: str) -> schema.Recipe:
    """The trainer's part of them."""
    return _of_a_run(schema.Recipe, _of_trainer(OmegaConf.create(values(text, name))), name)


def _of_a_run(kind: type, composed: DictConfig, name: str):
    """A run's settings, which nobody writes by hand; a Problem that names their file where one cannot be."""
    try:
        return _typed(kind, composed)
    except Problem as error:
        hint = "leave it alone, as nobody may change what a run holds, and start one of your own with `inv train`"
        raise Problem(f"{name}: {error.what}", hint, "damaged_run") from error


def values(text: bytes | str, name: str = "config.yaml of the run") -> dict:
    """The same, as plain values: data of somebody else, in which nothing is looked up, composed or called."""
    found = yaml_file.read(text, name, strict=False)
    if all(found.get(key) == value for key, value in FORMER.items()):
        found = {key: value for key, value in found.items() if key not in FORMER}
    for key in FORMER:
        if key in found:
            raise _no_data(name, f"it has `{key}`")
    _hold_to_data(found, name)
    origin = found.get("provenance")
    if isinstance(origin, dict) and isinstance(origin.get("swept"), list):
        origin["swept"] = [renamed.word(each) if isinstance(each, str) else each for each in origin["swept"]]
    return found


def _hold_to_data(value: object, name: str) -> None:
    """Nothing, or a Problem where something in it would be called or looked up."""
    if isinstance(value, str) and any(len(sign[1]) % 2 == 0 for sign in yaml_file.INTERPOLATION.finditer(value)):
        raise _no_data(name, f"{value[:60]!r} stands for another value")
    if isinstance(value, dict) and (command := next((key for key in value if key in COMMANDS), None)):
        raise _no_data(name, f"it has `{command}`")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _hold_to_data(each, name)


def _no_data(name: str, why: str) -> Problem:
    hint = "no run of ours is written so: leave it alone, and start one of your own with `inv train`"
    return Problem(f"{name} is more than data: {why}", hint, "damaged_run")


def fingerprint(run: schema.Recipe) -> str:
    """The sha256 of all that decides what a run computes: two runs with one fingerprint are the same run.

    Where activations come from changes no step, and is decided anew for each card: another one goes on with the run. Checkpoints hold
    it, so that it is made of the settings' old names for good.
    """
    decisive = renamed.with_old_names({key: value for key, value in _plain(run).items() if key not in BESIDES})
    del decisive["train"]["recompute"]
    decisive["merged"] = run.publish.merged  # it is made and scored before the run is sealed
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _defaults(given: list[str], local: Path) -> list[str]:
    """The user's own defaults as overrides, but for what the command line says otherwise."""
    # An explicit cloud=twin is hermetic: nothing of the user's own defaults may reach it.
    if "cloud=twin" in override_words.spelled(given) or not local.exists():
        return []
    own = yaml_file.read(local.read_bytes(), yaml_file.shown(local))
    return [word for word in _flat(own) if _key(word) not in set(map(_key, given))]


def _key(word: str) -> str:
    return word.split("=", 1)[0].lstrip("+~")


def _flat(own: dict, path: str = "") -> list[str]:
    flat = []
    for key, value in own.items():
        kind = setting_types.of(f"{path}{key}")
        if isinstance(value, dict) and kind in (Kind.room, Kind.group, Kind.options):
            flat += _flat(value, f"{path}{key}.")
        else:
            flat.append(override_words.word(f"{path}{key}", value))
    return flat


def _compose(defaults: list[str], given: list[str]) -> DictConfig:
    OmegaConf.register_new_resolver("caller", caller.of_a_box, replace=True)
    yaml_file.register()
    GlobalHydra.instance().clear()
    with explained(given), initialize_config_dir(str(FOLDER.resolve()), version_base="1.3"):
        return compose("main", overrides=_leave(defaults) + spelled(given))


@contextmanager
def explained(given: list[str]) -> Iterator[None]:
    """Let Hydra compose settings of these overrides; what it refuses becomes a Problem."""
    try:
        yield
    except MissingConfigException as error:
        raise _no_such_choice(error) from error
    except OverrideParseException as error:
        raise _unreadable(_as_given(error.override, given)) from error
    except (ConfigCompositionException, HydraException, ValueError) as error:
        raise _bad_override(error, given) from error


def _as_given(word: str, given: list[str]) -> str:
    """The override as it was typed."""
    return dict(zip(spelled(given), given, strict=True)).get(word, word)


def _unreadable(word: str) -> Problem:
    """What to say about a word that Hydra cannot read or use."""
    key, equals, value = word.lstrip("+~").partition("=")
    if not key or not (equals or word.startswith("~")):
        return Problem(f"cannot read the override `{word}`", "write a setting and its value, such as `lora.r=16`")
    if setting_types.of(key) is None:
        return _no_such_setting(key)
    if "," in value and setting_types.of(key) in (Kind.text, Kind.group):
        return _several(word)
    if "${" in value:
        meant = shlex.quote(word.replace("${", r"\${"))
        return Problem(
            f"`{word}`: `${{...}}` stands for another value, and there is none", f"what is meant as it stands has a backslash: `{meant}`"
        )
    return Problem(f"cannot use `{word}`", setting_values.takes(key))


def _no_such_choice(error: MissingConfigException) -> Problem:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    names = ", ".join(name for name in error.options or [] if not name.startswith("_"))  # those are parts of others
    hint = f"choose one of: {names}"
    if group == "model":
        hint += "; or name any model of the Hub: `model.id=owner/name`"
    if group == "data":
        hint += f"; or write conf/data/{choice}.yaml; or name your files: `data.train=FILE data.validation=FILE`"
    return Problem(f"there is no {group or 'config'} `{choice}`", hint)


def _bad_override(error: Exception, given: list[str]) -> Problem:
    message = str(error)
    if "Ambiguous value" in message:
        return _several(_as_given(message.partition("'")[2].partition("'\n")[0], given))
    if "requires --multirun" in message:
        return _several(_as_given(message.partition("'")[2].rpartition("'")[0], given))
    reason = str(error.__cause__ or error).splitlines()
    key = next((line.split(":", 1)[1].strip() for line in reason if line.strip().startswith("full_key:")), "")
    strange = [
        word for word in given if setting_types.of(_key(word)) is None and not _key(word).startswith(("hydra.", "-"))
    ]  # -m is no override
    named = [word for word in given if _key(word) == key or f"'{_key(word)}'" in message or word.lower().endswith("=null")]
    if strange or named:
        return _unreadable([*strange, *named][0])
    if key:
        return _no_such_setting(key)
    what = f"cannot use the overrides `{shlex.join(given)}`: {message.splitlines()[0]}"
    return Problem(what, "each is a setting and its value, such as `lora.r=16`")


def _several(word: str) -> Problem:
    """What to say about several values where one is wanted."""
    key, _, value = word.partition("=")
    hint = f"one value each; several are a sweep: `inv sweep -- {shlex.quote(word)}`"
    if setting_types.of(_key(word)) in (Kind.text, Kind.group):
        hint += f"; a comma that belongs to the text: `{shlex.quote(f'{key}={override_words.quote(value)}')}`"
    return Problem(f"`{key}` has several values: {value}", hint)


def _no_such_setting(key: str) -> Problem:
    if setting_types.of(key):
        return Problem(f"`{key}` cannot have this value", setting_values.takes(key))
    return Problem(f"there is no setting `{key}`", setting_types.nearest(key))


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
    _read_named(composed)
    try:
        _check(kind, OmegaConf.to_container(composed, resolve=True))
        merged = OmegaConf.merge(OmegaConf.structured(kind), composed)
        return OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        raise _no_such_setting(error.full_key or str(error.key)) from error
    except MissingMandatoryValue as error:
        raise Problem(f"`{error.full_key}` has no value", f"give one: `{error.full_key}=VALUE`") from error
    except ValidationError as error:
        raise _cannot_be(error.full_key, error.value) from error
    except OmegaConfBaseException as error:
        what = "`${...}` stands for another setting or a variable: write the value itself, or `\\${...}` for these very signs"
        raise Problem(str(error).splitlines()[0], what) from error
    except ValueError as error:
        quoted = RULE.fullmatch(str(error))
        what, hint = quoted.groups() if quoted else (str(error), "")
        raise Problem(what, hint or "see conf/schema.py for the rules") from error


def _check(kind: type, values: Any) -> None:
    """A Problem for the first setting whose value is of another type than its own."""
    for path in setting_types.paths(kind):
        held: Any = {"": values}
        for name in ["", *path.split(".")]:
            held = held.get(name, "???") if isinstance(held, dict) else "???"  # what is missing or no room is told by OmegaConf
        if found := setting_values.wrong(path, held):
            raise _cannot_be(*found)


def _cannot_be(path: str, value: object) -> Problem:
    return Problem(f"`{path}` cannot be {setting_values.shown(value)}", setting_values.takes(path))


def _read_named(composed: DictConfig) -> None:
    """Names that Hydra's own words cannot hold came as a text (`words`)."""
    for path in ("data.also",):
        text = OmegaConf.select(composed, path, throw_on_missing=False)
        if isinstance(text, str):
            try:
                named = json.loads(text)
            except ValueError:
                named = None
            if not isinstance(named, dict):
                raise Problem(f"`{path}` is {text!r}", setting_values.takes(path))
            OmegaConf.update(composed, path, named, merge=False, force_add=True)


def _read_template(composed: DictConfig) -> None:
    """A file that `data.chat_template` names, by what is in it: the run's own settings reproduce the run."""
    named = OmegaConf.select(composed, "data.chat_template", throw_on_missing=False)
    if not named or "{{" in named or "{%" in named:
        return
    try:
        text = paths.resolve(named).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise Problem(
            f"data.chat_template names {named}, which cannot be read: {why}", "give a file: `data.chat_template=FILE.jinja`"
        ) from error
    OmegaConf.update(composed, "data.chat_template", yaml_file.escaped(text))


def _plain(run: schema.Recipe) -> dict:
    def simple(value):
        if isinstance(value, Enum):
            return value.name
        if isinstance(value, dict):
            return {key: simple(entry) for key, entry in value.items()}
        return [simple(entry) for entry in value] if isinstance(value, list) else value

    return simple(asdict(run))
