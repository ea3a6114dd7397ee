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
from omegaconf.errors import (
    ConfigKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from conf import made_for_rows, override_words, paths, renamed, schema, setting_types, setting_values, yaml_file
from conf.problem import Problem
from conf.process import caller
from conf.setting_types import Kind
from conf.text import secret
from conf.text.quoting import without_secrets

FOLDER = setting_types.FOLDER
LOCAL = FOLDER / "local.yaml"
# Settings with keys that are not ours: PEFT's, the optimizer's and the Dockerfile's, which check them, and names of files.
OPEN_SETTINGS = ("lora.options", "train.optimizer_options", "data.also=", "data.chat_template_kwargs", "cloud.build_args")
NOT_IN_FINGERPRINT = ("run_id", "runs", "provenance", "publish", "cloud", "box", "cost", "notify", "fleet")  # these change no result
PARAMETER = re.compile(r"\$\{ssm:(?P<name>[^,}]+)(?:,(?P<default>[^}]*))?\}")
# What each run made before 2026-11-29 carries for Hydra, which composed it on the box then; it says nothing of the run.
FORMER_HYDRA_KEYS = {
    "defaults": ["_self_", {"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}],
    "hydra": {"output_subdir": None, "run": {"dir": "."}},
}
EXAMPLES = {  # of settings that only the user knows
    "data.train": "data.train=my.jsonl",
    "data.validation": "data.validation=held_out.jsonl",
    "data.fields": "'data.fields=[city,people]'` scores these keys of the answers; free text: `data.fields=null",
}
COMMANDS = {"_target_", "_args_", "_partial_", "_recursive_", "_convert_"}  # Hydra's keys that call something

# What a rule of the schema says: what is wrong, and behind a semicolon what to do. In quotes stands a value, which may be anybody's.
RULE = re.compile(r"""((?>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^;])+?); (.*)""", re.DOTALL)

Fetch = Callable[[list[str], dict], dict[str, str]]  # names of Parameter Store, and the cloud's settings as far as they need none


def hydra_words(overrides: list[str]) -> list[str]:
    """The overrides in Hydra's spelling: text as it was typed, paths relative to the repository, and `++` before settings that hold
    another library's own options."""
    return _allow_new_keys(override_words.quoted(overrides, Path.cwd()))


def _allow_new_keys(spelled: list[str]) -> list[str]:
    return [f"++{word}" if word.startswith(OPEN_SETTINGS) else word for word in spelled]


def load(overrides: list[str], fetch: Fetch | None = None, local: Path = LOCAL) -> schema.Run:
    """The settings of a run. `fetch` reads names from Parameter Store; without it a default or `<ssm:NAME>` is used.

    `none` in Parameter Store is null: a parameter there cannot be empty.
    """
    overrides = renamed.words(overrides)
    composed = _compose(_defaults(overrides, local), overrides)
    _register(composed, fetch)
    _read_template(composed)
    _refuse_secrets(OmegaConf.to_container(composed, resolve=False))
    return _typed(schema.Run, composed)


def recipe(composed: DictConfig) -> schema.Recipe:
    """The trainer's part of a composed configuration, checked."""
    _register_made_for_rows()
    _read_template(composed)
    _refuse_secrets(OmegaConf.to_container(_recipe_keys(composed), resolve=False))
    return _typed(schema.Recipe, _recipe_keys(composed))


def _register_made_for_rows() -> None:
    OmegaConf.register_new_resolver("rows_name", made_for_rows.name, replace=True)
    OmegaConf.register_new_resolver("usual_lr", made_for_rows.lr, replace=True)


def _recipe_keys(whole: DictConfig) -> DictConfig:
    others = ("cloud", "box", "cost", "notify", "fleet", "hydra")
    return OmegaConf.create({key: value for key, value in whole.items_ex(resolve=False) if key not in others})


def dump(run: schema.Recipe) -> str:
    """The text of a run's `config.yaml`: every value resolved, plain data for `read` and `saved`."""
    return yaml_file.write(yaml_file.escaped(_plain(run)))


def read(text: bytes | str, name: str = "config.yaml of the run") -> schema.Run:
    """The settings that a run's `config.yaml` holds."""
    return _typed_run(schema.Run, OmegaConf.create(values(text, name)), name)


def saved(text: bytes | str, name: str) -> schema.Recipe:
    """The trainer's part of them."""
    return _typed_run(schema.Recipe, _recipe_keys(OmegaConf.create(values(text, name))), name)


def _typed_run(kind: type, composed: DictConfig, name: str):
    """A run's settings, which are not written by hand; a Problem names their file where one is invalid."""
    try:
        return _typed(kind, composed)
    except Problem as error:
        hint = "leave it alone, as a run's files must not change, and start a new one with `inv train`"
        raise Problem(f"{name}: {error.what}", hint, "damaged_run") from error


def values(text: bytes | str, name: str = "config.yaml of the run") -> dict:
    """The same as plain values: foreign data, in which nothing is looked up, composed or called."""
    settings = yaml_file.read(text, name, strict=False)
    if all(settings.get(key) == value for key, value in FORMER_HYDRA_KEYS.items()):
        settings = {key: value for key, value in settings.items() if key not in FORMER_HYDRA_KEYS}
    for key in FORMER_HYDRA_KEYS:
        if key in settings:
            raise _not_plain_data(name, f"it has `{key}`")
    _check_plain_data(settings, name)
    if isinstance(publish := settings.get("publish"), dict) and publish.get("gguf") is False:  # as 0.1.0 wrote it for none
        publish["gguf"] = None
    origin = settings.get("provenance")
    if isinstance(origin, dict) and isinstance(origin.get("swept"), list):
        origin["swept"] = [renamed.word(override) if isinstance(override, str) else override for override in origin["swept"]]
    return settings


def _check_plain_data(value: object, name: str) -> None:
    """Nothing, or a Problem where something in it would be called or looked up."""
    if isinstance(value, str) and any(len(sign[1]) % 2 == 0 for sign in yaml_file.INTERPOLATION.finditer(value)):
        raise _not_plain_data(name, f"{value[:60]!r} refers to another value")
    if isinstance(value, dict) and (command := next((key for key in value if key in COMMANDS), None)):
        raise _not_plain_data(name, f"it has `{command}`")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_plain_data(item, name)


def _not_plain_data(name: str, why: str) -> Problem:
    hint = "no run is written like this: leave it alone, and start a new one with `inv train`"
    return Problem(f"{name} is more than data: {why}", hint, "damaged_run")


def fingerprint(run: schema.Recipe) -> str:
    """The sha256 of all that decides what a run computes: two runs with one fingerprint are the same run.

    Gradient checkpointing changes no step and is decided again for each card, so a run can resume on another one; so are the processes,
    which only add up in another order. Checkpoints hold the fingerprint, so it is made of the settings' old names for good.
    """
    decisive = renamed.with_old_names({key: value for key, value in _plain(run).items() if key not in NOT_IN_FINGERPRINT})
    for decided in ("recompute", "processes", "fsdp"):
        del decisive["train"][decided]
    decisive["merged"] = run.publish.merged  # it is made and scored before the run is sealed
    for added in ("adapter", "adapter_sha256"):  # runs of 0.1.0 have neither
        if not decisive["lora"][added]:
            del decisive["lora"][added]
    if run.data.train_rows is None:  # runs of 0.1.0 know no other number
        del decisive["data"]["train_rows"]
    if run.publish.gguf:
        decisive["gguf"] = run.publish.gguf.value
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _defaults(overrides: list[str], local: Path) -> list[str]:
    """The user's own defaults as overrides, but for what the command line says otherwise."""
    # An explicit cloud=twin is hermetic: nothing of the user's own defaults may reach it.
    if "cloud=twin" in override_words.quoted(overrides) or not local.exists():
        return []
    local_settings = yaml_file.read(local.read_bytes(), yaml_file.display_path(local))
    return [word for word in _flat(local_settings) if _key(word) not in set(map(_key, overrides))]


def _key(word: str) -> str:
    return word.split("=", 1)[0].lstrip("+~")


def _flat(nested: dict, path: str = "") -> list[str]:
    flat = []
    for key, value in nested.items():
        kind = setting_types.kind_of(f"{path}{key}")
        if isinstance(value, dict) and kind in (Kind.room, Kind.group, Kind.options):
            flat += _flat(value, f"{path}{key}.")
        else:
            flat.append(override_words.word(f"{path}{key}", value))
    return flat


def _compose(defaults: list[str], overrides: list[str]) -> DictConfig:
    OmegaConf.register_new_resolver("caller", caller.box_name, replace=True)
    _register_made_for_rows()
    yaml_file.register()
    GlobalHydra.instance().clear()
    with explained(overrides), initialize_config_dir(str(FOLDER.resolve()), version_base="1.3"):
        return compose("main", overrides=_allow_new_keys(defaults) + hydra_words(overrides))


@contextmanager
def explained(overrides: list[str]) -> Iterator[None]:
    """Let Hydra compose settings of these overrides; what it refuses becomes a Problem."""
    try:
        yield
    except MissingConfigException as error:
        raise _no_such_choice(error) from error
    except OverrideParseException as error:
        raise _unreadable(_as_typed(error.override, overrides)) from error
    except (ConfigCompositionException, HydraException, ValueError) as error:
        raise _bad_override(error, overrides) from error


def _as_typed(word: str, overrides: list[str]) -> str:
    """The override as it was typed."""
    return dict(zip(hydra_words(overrides), overrides, strict=True)).get(word, word)


def _unreadable(word: str) -> Problem:
    """The Problem of an override that Hydra cannot read or use."""
    key, equals, value = word.lstrip("+~").partition("=")
    if not key or not (equals or word.startswith("~")):
        return Problem(f"cannot read the override `{word}`", "write a setting and its value, such as `lora.r=16`")
    if setting_types.kind_of(key) is None:
        return _no_such_setting(key)
    if "," in value and setting_types.kind_of(key) in (Kind.text, Kind.group):
        return _several_values(word)
    if "${" in value:
        escaped = shlex.quote(word.replace("${", r"\${"))
        return Problem(f"`{word}`: `${{...}}` refers to another value, and there is none", f"plain text needs a backslash: `{escaped}`")
    return Problem(f"cannot use `{word}`", setting_values.accepted_hint(key))


def _no_such_choice(error: MissingConfigException) -> Problem:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    names = ", ".join(name for name in error.options or [] if not name.startswith("_"))  # those are parts of others
    hint = f"choose one of: {names}"
    if group == "model":
        hint += "; or name any model of the Hub: `model.id=owner/name`"
    if group == "data":
        hint += f"; or write conf/data/{choice}.yaml; or name your files: `data.train=FILE data.validation=FILE`"
    return Problem(f"there is no {group or 'config'} `{choice}`", hint)


def _bad_override(error: Exception, overrides: list[str]) -> Problem:
    message = str(error)
    if "Ambiguous value" in message:
        return _several_values(_as_typed(message.partition("'")[2].partition("'\n")[0], overrides))
    if "requires --multirun" in message:
        return _several_values(_as_typed(message.partition("'")[2].rpartition("'")[0], overrides))
    reason = str(error.__cause__ or error).splitlines()
    key = next((line.split(":", 1)[1].strip() for line in reason if line.strip().startswith("full_key:")), "")
    unknown = [
        word for word in overrides if setting_types.kind_of(_key(word)) is None and not _key(word).startswith(("hydra.", "-"))
    ]  # -m is no override
    mentioned = [word for word in overrides if _key(word) == key or f"'{_key(word)}'" in message or word.lower().endswith("=null")]
    if unknown or mentioned:
        return _unreadable([*unknown, *mentioned][0])
    if key:
        return _no_such_setting(key)
    what = f"cannot use the overrides `{without_secrets(overrides)}`: {message.splitlines()[0]}"
    return Problem(what, "each is a setting and its value, such as `lora.r=16`")


def _several_values(word: str) -> Problem:
    """The Problem of several values where one is wanted."""
    key, _, value = word.partition("=")
    verb = "curve" if _key(word) == "data.train_rows" else "sweep"
    hint = f"one value each; several are a {verb}: `inv {verb} -- {shlex.quote(word)}`"
    if setting_types.kind_of(_key(word)) in (Kind.text, Kind.group):
        hint += f"; a comma that belongs to the text: `{shlex.quote(f'{key}={override_words.quote(value)}')}`"
    return Problem(f"`{key}` has several values: {value}", hint)


def _no_such_setting(key: str) -> Problem:
    if setting_types.kind_of(key):
        return Problem(f"`{key}` cannot have this value", setting_values.accepted_hint(key))
    return Problem(f"there is no setting `{key}`", setting_types.nearest(key))


def _register(composed: DictConfig, fetch: Fetch | None) -> None:
    """Make `${ssm:NAME,default}` answer from Parameter Store, asked once for all names that occur."""
    defaults = {match["name"].strip(): match["default"] for match in PARAMETER.finditer(OmegaConf.to_yaml(composed, resolve=False))}
    values = fetch(sorted(defaults), _without_parameters(composed)) if fetch and defaults else {}
    missing = [name for name, default in defaults.items() if default is None and name not in values]
    if fetch and missing:
        names = ", ".join(sorted(missing))
        first = f"aws ssm put-parameter --type String --name {sorted(missing)[0]} --value VALUE"
        raise Problem(f"Parameter Store has no value for {names}", f"`inv init` sets them up, or set each one, for example: {first}")

    def answer(name: str, default: str | None = None) -> str | None:
        value = values.get(name, f"<ssm:{name}>" if default is None else default)
        return None if str(value) == "none" else value

    OmegaConf.register_new_resolver("ssm", answer, replace=True)


def _without_parameters(composed: DictConfig) -> dict:
    """The cloud's settings that do not come from Parameter Store: which cloud to ask, and in which region."""
    plain: Any = OmegaConf.to_container(composed.cloud, resolve=False)
    return {key: value for key, value in plain.items() if not (isinstance(value, str) and PARAMETER.search(value))}


def _typed(kind: type, composed: DictConfig):
    """`composed` as a `kind`, or a Problem with the path of the setting that cannot be."""
    _parse_named(composed)
    try:
        _check_types(kind, OmegaConf.to_container(composed, resolve=True))
        merged = OmegaConf.merge(OmegaConf.structured(kind), composed)
        return OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        raise _no_such_setting(error.full_key or str(error.key)) from error
    except (MissingMandatoryValue, InterpolationToMissingValueError) as error:
        missing = str(error).rpartition("Missing mandatory value: ")[2].split()[0].strip("\"'")  # what a value refers to
        key = missing if setting_types.kind_of(missing) else error.full_key or ""
        raise Problem(f"`{key}` has no value", f"give one: `{EXAMPLES.get(key, f'{key}=VALUE')}`") from error
    except ValidationError as error:
        raise _invalid(error.full_key or "", error.value) from error
    except OmegaConfBaseException as error:
        what = "`${...}` refers to another setting or a variable: write the value itself, or `\\${...}` for plain text"
        raise Problem(str(error).splitlines()[0], what) from error
    except ValueError as error:
        quoted = RULE.fullmatch(str(error))
        what, hint = quoted.groups() if quoted else (str(error), "")
        raise Problem(what, hint or "see conf/schema.py for the rules") from error


def _refuse_secrets(value: object, path: str = "") -> None:
    """Nothing, or a Problem where a setting holds a password or a known token.

    A run's settings are in S3, its name is in every key, and docker keeps build arguments in the image's history.
    """
    if isinstance(value, str) and (secret.LOGIN.search(value) or secret.hide(value) != value):
        raise Problem(f"`{path}` holds a password or a token, and others can read a run's settings", "use a value that needs none")
    for name, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        _refuse_secrets(item, f"{path}.{name}".lstrip("."))


def _check_types(kind: type, values: Any) -> None:
    """A Problem for the first setting whose value is of another type than its own."""
    for path in setting_types.all_paths(kind):
        value: Any = {"": values}
        for name in ["", *path.split(".")]:
            value = value.get(name, "???") if isinstance(value, dict) else "???"  # OmegaConf reports what is missing or no section
        if invalid := setting_values.invalid_value(path, value):
            raise _invalid(*invalid)


def _invalid(path: str, value: object) -> Problem:
    return Problem(f"`{path}` cannot be {setting_values.short_json(value)}", setting_values.accepted_hint(path))


def _parse_named(composed: DictConfig) -> None:
    """Parse names that Hydra's syntax cannot hold, and that came as a text (`override_words`)."""
    for path in ("data.also",):
        text = OmegaConf.select(composed, path, throw_on_missing=False)
        if isinstance(text, str):
            try:
                numbers = json.loads(text)
            except ValueError:
                numbers = None
            if not isinstance(numbers, dict):
                raise Problem(f"`{path}` is {text!r}", setting_values.accepted_hint(path))
            OmegaConf.update(composed, path, numbers, merge=False, force_add=True)


def _read_template(composed: DictConfig) -> None:
    """A file that `data.chat_template` names, by what is in it: the run's own settings reproduce the run."""
    template = OmegaConf.select(composed, "data.chat_template", throw_on_missing=False)
    if not template or "{{" in template or "{%" in template:
        return
    try:
        text = paths.resolve(template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise Problem(
            f"data.chat_template names {template}, which cannot be read: {why}", "give a file: `data.chat_template=FILE.jinja`"
        ) from error
    OmegaConf.update(composed, "data.chat_template", yaml_file.escaped(text))


def _plain(run: schema.Recipe) -> dict:
    def simple(value):
        if isinstance(value, Enum):
            return value.name
        if isinstance(value, dict):
            return {key: simple(item) for key, item in value.items()}
        return [simple(item) for item in value] if isinstance(value, list) else value

    return simple(asdict(run))
