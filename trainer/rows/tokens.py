"""A model's tokenizer and chat template without transformers: the laptop counts the tokens that the trainer will see.

It has only what `Prompt` uses of a tokenizer, and gives the same as transformers' own (tested token by token).
"""

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError, meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from conf.problem import Problem
from trainer.rows import description

UNLIMITED = int(1e30)  # transformers' number for a tokenizer that states no longest text
NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


class Tokens:
    """The tokenizer in a model's folder."""

    is_fast = True
    bos_token: str | None
    eos_token: str | None
    unk_token: str | None

    def __init__(self, folder: Path):
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise Problem("the model has no tokenizer.json", "its tokens are counted where it is trained", "model_unavailable")
        description.bound(file.name, file.stat().st_size)
        try:
            self.tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises nothing narrower
            raise description.unusable(file, f"cannot be read ({error})") from error
        self.tokenizer.no_truncation()  # as transformers does, whatever the file says of how its maker has used it
        self.tokenizer.no_padding()
        place = folder / "tokenizer_config.json"
        config = description.read(place)
        for name in NAMED:
            token = config.get(name)
            setattr(self, name, token := token.get("content") if isinstance(token, dict) else token)
            if not isinstance(token, str | None):
                raise description.unusable(place, f"says {name}={str(token)[:40]!r}, and that is no text")
        longest = config.get("model_max_length")
        self.model_max_length = UNLIMITED if longest is None else longest
        if not isinstance(self.model_max_length, int | float):
            raise description.unusable(place, f"says model_max_length={str(longest)[:40]!r}, and that is no number")
        template = folder / "chat_template.jinja"
        self.chat_template = description.text(template) if template.is_file() else _by_name(place, config.get("chat_template"))

    @property
    def bos_token_id(self) -> int | None:
        return self._id(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        return self._id(self.eos_token)

    @property
    def unk_token_id(self) -> int | None:
        return self._id(self.unk_token)

    def __call__(self, text: str | list[str], add_special_tokens: bool = True, return_offsets_mapping: bool = False) -> dict:
        if isinstance(text, list):
            return {
                "input_ids": [encoding.ids for encoding in self.tokenizer.encode_batch_fast(text, add_special_tokens=add_special_tokens)]
            }
        encoding = self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": encoding.ids, "offset_mapping": encoding.offsets}

    def decode(self, tokens: list[int], skip_special_tokens: bool = False) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens)

    def convert_ids_to_tokens(self, token: int) -> str | None:
        return self.tokenizer.id_to_token(token)

    @property
    def added_tokens_decoder(self) -> dict:
        return self.tokenizer.get_added_tokens_decoder()

    @property
    def special_tokens_map(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in NAMED if getattr(self, name)}

    def _id(self, token: str | None) -> int | None:
        return None if token is None else self.tokenizer.token_to_id(token)


class Generation(Extension):
    """`{% generation %}`, around answers: transformers marks their tokens by it; the text is what is inside."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own type)

    def parse(self, parser) -> nodes.Scope:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True), lineno=line)


def render(template: str, values: dict) -> str:
    """What a template makes of values. It may take any time and memory: `template_sandbox` limits both."""
    return _compiled(template).render(**values)


def variables(template: str) -> list[str]:
    """The variables that a template reads and a user may set; the same holds."""
    names = meta.find_undeclared_variables(_environment().parse(template))
    return sorted(names - {*NAMED, "messages", "add_generation_prompt", "raise_exception", "strftime_now", "range", "namespace"})


def _tojson(value: object, ensure_ascii: bool = False, **options) -> str:
    """JSON as transformers' filter writes it."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


@cache  # compiling takes a hundred times as long as rendering a row
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


def _environment() -> ImmutableSandboxedEnvironment:
    world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    world.filters["tojson"] = _tojson
    world.globals["raise_exception"] = _raise
    world.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return world


def _by_name(place: Path, template: Any) -> str | dict[str, str] | None:
    """A template, or where a model has several of them, each by its name, as transformers keeps them."""
    try:
        found = {each["name"]: each["template"] for each in template} if isinstance(template, list) else template
    except (TypeError, KeyError) as error:
        raise description.unusable(place, "has chat templates without a name") from error
    if not all(isinstance(each, str | None) for each in (found.values() if isinstance(found, dict) else [found])):
        raise description.unusable(place, "has a chat template that is no text")
    return found


def _raise(message: str) -> None:
    raise TemplateError(message)
