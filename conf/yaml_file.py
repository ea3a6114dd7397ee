"""Settings in YAML: one reader, in which a setting that is text stays as it is written, and one writer.

YAML reads `no` as false, `1e3` as a number, `2026-01-05` as a date, and which of them depends on the reader. Here the schema
decides while the text is still there; and what is written is in quotes wherever some reader might see anything but text.
Hydra reads the files of conf/, and a run's, by the same code (`register`).
"""

import re
from pathlib import Path
from shlex import quote as pasted
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from conf import renamed, setting_types, setting_values
from conf.problem import Problem
from conf.setting_types import Kind

OMEGACONF = get_yaml_loader()  # OmegaConf's: YAML 1.1 without dates, with 1e3 as a number
READERS = (OMEGACONF, yaml.SafeLoader)  # those that may see anything but text where no quotes are
TEXT, NULL, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"
GUESSED_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp", "value", "merge")}  # from a text's looks
NUMBER_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float")}
INTERPOLATION = re.compile(r"(\\*)\$\{")
DEEPEST, LARGEST = 50, 100_000  # levels, and values with all that aliases repeat
TOO_DEEP = f"values are nested more than {DEEPEST} deep"
# YAML's errors in plain words, each with a hint.
MEANINGS = {
    "mapping values are not allowed": (
        "a second colon, or a line whose indentation differs from the lines before it",
        "put text with a colon in quotes",
    ),
    "<block end>": ("a line whose indentation differs from the lines before it", "put it below the others"),
    "duplicate key": ("a key that was there before", "leave one of them"),
    "could not determine a constructor": ("a tag (`!...`), which means nothing here", "write plain text, numbers and lists"),
    TOO_DEEP: (TOO_DEEP, "settings need three levels"),
    "another document": ("a second document", "leave one"),
}


class Loader(OMEGACONF):  # type: ignore[valid-type, misc]  # made by a function
    """Takes no more levels than a reader of them can."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=TOO_DEEP, problem_mark=self.peek_event().start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class Dumper(yaml.SafeDumper):
    """Puts in quotes what any reader could take for something else than text."""


def _text(dumper: Dumper, text: str) -> yaml.Node:
    safe = all(reader("").resolve(yaml.ScalarNode, text, (True, False)) == TEXT for reader in READERS)
    plain = safe and text.isprintable() and not re.match(r"[-+.]?\d", text)
    return dumper.represent_scalar(TEXT, text, style=None if plain else '"')


Dumper.add_representer(str, _text)


def write(values: dict) -> str:
    """The values as YAML."""
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def escaped(value: Any) -> Any:
    """The values for OmegaConf, which would look up a `${name}`: a backslash makes it plain text."""
    if isinstance(value, str):
        return INTERPOLATION.sub(lambda match: match[1] * 2 + r"\${", value)
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    return [escaped(item) for item in value] if isinstance(value, list) else value


def read(body: bytes | str, name: str, package: str = "", strict: bool = True) -> dict:
    """The settings in a file, with text as text. `package` is the path of its settings.

    `name` is what people call the file. A Problem says what is wrong with which line; `strict`: also where there is no such setting.
    """
    text = body if isinstance(body, str) else decoded(body, name)
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise Problem(f"{name} is not a mapping of settings", f"write lines such as `name: mine`, or remove it: `rm {pasted(name)}`")
        _check_size(node, name)
        _keep_text(node, package, name, strict)
        _check_decimal(node, name)
        values = loader.construct_document(node)
        if strict:
            _check_types(node, values, package, name)
        return values
    except yaml.MarkedYAMLError as error:
        raise _yaml_problem(error, text, name) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"{name}, line {line}: the character U+{error.character:04X} is not allowed in YAML"
        raise Problem(what, f"take it out: `sed -n {line}p {pasted(name)} | cat -A` shows it") from error
    except ValueError as error:  # `0x` and other texts that look like a number and are none
        raise Problem(f"{name}: a value cannot be read ({error})", "put text in quotes") from error


def decoded(body: bytes, name: str) -> str:
    marks = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    encoding = next((encoding for mark, encoding in marks.items() if body.startswith(mark)), "utf-8")
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        line, byte = body.count(b"\n", 0, error.start) + 1, body[error.start : error.start + 1]
        looks = f"; in Windows-1252 it is {byte.decode('cp1252')!r}" if byte.decode("cp1252", "ignore") else ""
        file = pasted(name)
        hint = f"save the file as UTF-8: `iconv -f CP1252 -t UTF-8 {file} > {file}.new && mv {file}.new {file}`"
        raise Problem(f"{name}, line {line}: the byte 0x{byte.hex()} is not UTF-8{looks}", hint) from error


def _check_size(node: yaml.Node, name: str) -> None:
    """Aliases may repeat each other, and themselves, without end."""
    stack, count = [node], 0
    while stack:
        count += 1
        if count > LARGEST:
            raise Problem(f"{name} has more than {LARGEST} values, with those that its aliases repeat", "write settings without aliases")
        value = stack.pop().value
        stack += [part for pair in value for part in (pair if isinstance(pair, tuple) else (pair,))] if isinstance(value, list) else []


def _keep_text(node: yaml.Node, path: str, name: str, strict: bool) -> None:
    """Let what is text to the schema be text, whatever it looks like."""
    kind = setting_types.kind_of(path) if path else Kind.room
    if isinstance(node, yaml.ScalarNode) and strict:
        node.value = renamed.references(node.value, _line(node, name))
    if isinstance(node, yaml.ScalarNode) and kind in (Kind.text, Kind.either, Kind.group, Kind.texts):
        _as_text(node)
    elif isinstance(node, yaml.SequenceNode) and kind in (Kind.texts, Kind.either):
        for item in node.value:
            if not isinstance(item, yaml.ScalarNode) or item.tag == NULL:
                raise Problem(f"{_line(item, name)}: `{path}` takes texts, and this is none", "put text with a colon or brackets in quotes")
            _as_text(item)
    elif isinstance(node, yaml.SequenceNode) and kind in (Kind.room, Kind.group):
        raise Problem(f"{_line(node, name)}: `{path}` is a list, and takes settings", setting_types.nearest(f"{path}.?"))
    elif isinstance(node, yaml.MappingNode):
        node.value = [(key, value) for key, value in node.value if not _is_empty_section(key, value, path)]
        _rename(node, path, name, strict)
        _keep_text_in_mapping(node, path, name, kind, strict)


def _rename(node: yaml.MappingNode, path: str, name: str, strict: bool) -> None:
    """Give each setting that has its old name the new one. A line names it, unless the file is a run's (not `strict`)."""
    before = f"{path}." if path else ""
    names = {f"{before}{key.value}": (key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    for old in renamed.NEW_NAMES.keys() & names.keys():
        (key, value), new = names[old], renamed.NEW_NAMES[old]
        if strict:
            renamed.print_new_name(old, _line(key, name))
        if new not in names:
            key.value = new.removeprefix(before)
        elif yaml.serialize(value) == yaml.serialize(names[new][1]):
            node.value.remove((key, value))
        else:
            raise Problem(f"{_line(key, name)}: `{old}` and `{new}` are one setting with two values", f"leave out the old name, `{old}`")


def _is_empty_section(key: yaml.Node, value: yaml.Node, path: str) -> bool:
    """`train:` with all lines below it commented out."""
    setting = f"{path}.{key.value}" if path else str(key.value)
    return value.tag == NULL and setting_types.kind_of(setting) in (Kind.room, Kind.group)


def _check_decimal(node: yaml.Node, name: str) -> None:
    """A Problem where YAML reads a number in another base: to it `1:30` is 90, and 010 is 8."""
    if isinstance(node, yaml.ScalarNode):
        if node.tag in NUMBER_TAGS and re.match(r"[-+]?(0[\d_]+\Z|.*:)", node.value):
            raise Problem(f"{_line(node, name)}: `{node.value}` is another number to YAML", "write it in tens, such as 1.5; text in quotes")
        return
    for part in (part for item in node.value for part in (item if isinstance(item, tuple) else (item,))):
        _check_decimal(part, name)


def _check_types(node: yaml.MappingNode, values: dict, path: str, name: str) -> None:
    """A Problem with the line where a setting has a value of another type."""
    for key, value in node.value:
        setting_path = f"{path}.{key.value}" if path else key.value
        kind = setting_types.kind_of(setting_path) if isinstance(key, yaml.ScalarNode) and key.value in values else None
        if kind in (Kind.room, Kind.group) and isinstance(value, yaml.MappingNode):
            _check_types(value, values[key.value], setting_path, name)
        elif kind not in (None, Kind.group) and (invalid := setting_values.invalid_value(setting_path, values[key.value])):
            setting, description, example = setting_values.accepted_values(invalid[0])
            hint = f"it takes {description}" + f", such as `{setting.rpartition('.')[2]}: {example}`" * bool(example)
            raise Problem(f"{_line(value, name)}: `{invalid[0]}` cannot be {setting_values.short_json(invalid[1])}", hint)


def _line(node: yaml.Node, name: str) -> str:
    return f"{name}, line {node.start_mark.line + 1}"


def _keep_text_in_mapping(node: yaml.MappingNode, path: str, name: str, kind: Kind | None, strict: bool) -> None:
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        if key.tag == MERGE:
            for source in value.value if isinstance(value, yaml.SequenceNode) else (value,):
                _keep_text(source, path, name, strict)
            continue
        _as_text(key, null=True)
        setting = f"{path}.{key.value}" if path else key.value
        if not path and key.value in ("defaults", "hydra"):
            _keep_default_names(value if key.value == "defaults" else None)
        elif kind is Kind.named_texts:
            _as_text(value)
        elif kind in (Kind.room, Kind.group):
            if strict and setting_types.kind_of(setting) is None and key.value != "defaults":
                raise Problem(f"{_line(key, name)}: there is no setting `{setting}`", setting_types.nearest(setting))
            _keep_default_names(value) if key.value == "defaults" else _keep_text(value, setting, name, strict)


def _keep_default_names(node: yaml.Node | None) -> None:
    """A list of defaults names files."""
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        for part in (half for pair in item.value for half in pair) if isinstance(item, yaml.MappingNode) else (item,):
            _as_text(part)


def _as_text(node: yaml.Node, null: bool = False) -> None:
    if isinstance(node, yaml.ScalarNode) and node.tag in (GUESSED_TAGS if not null else {*GUESSED_TAGS, NULL}):
        node.tag = TEXT


def _yaml_problem(error: yaml.MarkedYAMLError, text: str, name: str) -> Problem:
    """YAML's error, with the line and a hint."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    lines, file = text.split("\n"), pasted(name)
    written = lines[line - 1] if line <= len(lines) else ""
    show = f"`sed -n {line}p {file}` shows the line"
    opened = error.context_mark.line + 1 if error.context_mark else line
    message = f"{error.context or ''} {error.problem or ''}".strip() or "it is no YAML"
    if "\t" in written[: len(written) - len(written.lstrip()) + 1] or "'\\t'" in message:
        return Problem(f"{name}, line {line}: a tab where YAML wants spaces", f"put spaces there: `perl -pi -e 's/\\t/  /g' {file}`")
    if "flow" in (error.context or ""):
        what = f"{name}, line {opened}: a bracket or brace that opens there is not closed, or a comma is missing"
        return Problem(what, f"close it; `sed -n {opened},{line}p {file}` shows what follows")
    if "quoted scalar" in (error.context or ""):
        return Problem(
            f"{name}, line {opened}: a quote that opens there is not closed, or holds an unknown backslash sequence", f"correct it; {show}"
        )
    for sign, (what, mend) in MEANINGS.items():
        if sign in message:
            return Problem(f"{name}, line {line}: {what}", f"{mend}; {show}")
    return Problem(
        f"{name}, line {line}: {error.problem or message}", f"put text that holds quotes, colons, `#`, `*`, `@` or `%` in quotes; {show}"
    )


class Files(FileConfigSource):
    """Hydra's way to the files of conf/, and to a run's `config.yaml`."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path, self._normalize_file_name(config_path)).resolve()
        if not path.exists():
            raise ConfigLoadError(f"Config not found : {path}")
        text = decoded(path.read_bytes(), display_path(path))
        header = self._get_header_dict(text[:512])
        group = config_path.removesuffix(".yaml").rpartition("/")[0].replace("/", ".")
        named = header["package"] or "_group_"
        package = {"_global_": "", "_group_": group}.get(named, named)
        ours = package.partition(".")[0] != "hydra" and "@" not in config_path
        values = read(text, display_path(path), package) if ours else yaml.load(text, Loader)
        return ConfigResult(config=OmegaConf.create(values), path=f"file://{self.path}", provider=self.provider, header=header)


def display_path(path: Path) -> str:
    """The path as the user would type it in the working directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def register() -> None:
    """Let Hydra read settings by this module from now on."""
    Plugins.instance()  # it registers its own first
    SourcesRegistry.instance().types["file"] = Files
