"""A Modelfile for Ollama, whose templates are Go's: made only where it provably writes what the model's own Jinja template writes.

Ollama does not run the Jinja template in a GGUF file: it guesses one of its own by likeness (docs.ollama.com/import). So a template that
is more than text around each turn gets no Modelfile, and a sentence instead. What is compared is `render`, the Go template in Python.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from conf.problem import Problem
from conf.schema import Recipe
from data.readers.turns import Turn
from data.rows import Row
from trainer.export.vocabulary import Vocabulary
from trainer.rows import chat_template
from trainer.rows.prompt import Prompt

USER, ANSWER, AGAIN, SYSTEM = "first question", "first answer", "second question", "system text"  # no template writes these by itself
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Frame:
    """The text around turns, by role: before and behind each. `opening` stands before all of them where there is no system turn."""

    opening: str
    around: dict[str, tuple[str, str]]
    generation: str

    def render(self, turns: list[Turn]) -> str:
        """What the Go template makes of these turns."""
        text = "" if turns[0]["role"] == "system" else self.opening
        for turn in turns:
            before, behind = self.around[str(turn["role"])]
            text += f"{before}{turn['content']}{behind}"
        return text + self.generation

    def go_template(self) -> str:
        """The template in Go's language, each piece of text quoted."""
        branches = [
            f'{{{{ if eq .Role "{role}" }}}}{_quoted(one)}{{{{ .Content }}}}{_quoted(two)}' for role, (one, two) in self.around.items()
        ]
        opening = (
            f'{{{{ if .Messages }}}}{{{{ if ne (index .Messages 0).Role "system" }}}}{_quoted(self.opening)}{{{{ end }}}}{{{{ end }}}}'
        )
        turns = "{{ range .Messages }}" + "{{ else }}".join(branches) + "{{ end }}" * len(branches) + "{{ end }}"
        return (opening if self.opening else "") + turns + _quoted(self.generation)


def write(file: Path, settings: Recipe, prompt: Prompt, vocabulary: Vocabulary, rows: list[Row]) -> str | None:
    """Put a Modelfile beside the GGUF file; why there is none, where there is none."""
    frame = _frame(prompt, vocabulary)
    if frame is None:
        return "its chat template is more than text around each turn, which Ollama's templates could not be shown to write"
    beginning = prompt.tokenizer.bos_token if vocabulary.add_bos else ""  # Ollama puts it there itself
    for row in rows:
        if row.tools or any(turn["role"] not in ROLES for turn in row.messages):
            return "its rows have tools, which Ollama's templates could not be shown to write"
        if beginning + frame.render(row.messages) != prompt.text(row.messages):
            return f"Ollama would write row {row.id} otherwise than its chat template"
    context = settings.data.max_length + settings.data.answer_limit
    lines = [
        f"FROM ./{file.name}",
        f'TEMPLATE """{frame.go_template()}"""',
        f"PARAMETER stop {_value(prompt.tokenizer.convert_ids_to_tokens(prompt.stop))}",
        "PARAMETER temperature 0",  # greedy and plain, as it was scored
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_ctx {context}",
        f"PARAMETER num_predict {settings.data.answer_limit}",
    ]
    file.with_name("Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return None


def _frame(prompt: Prompt, vocabulary: Vocabulary) -> Frame | None:
    """The text around turns, or None where the template's texts are not made so."""
    turns = [_turn("user", USER), _turn("assistant", ANSWER), _turn("user", AGAIN)]
    system = _turn("system", SYSTEM)
    try:
        asked, answered = _text(prompt, turns[:1], False), _text(prompt, turns[:2], False)
        whole, told = _text(prompt, turns, True), _text(prompt, [system, turns[0]], False)
    except Problem:
        return None
    behind_user, behind_answer = asked.rpartition(USER)[2], answered.rpartition(ANSWER)[2]
    before_answer = _between(whole, USER, ANSWER, behind_user, "")
    before_user = _between(whole, ANSWER, AGAIN, behind_answer, "")
    generation = whole.rpartition(AGAIN)[2].removeprefix(behind_user)
    if before_answer is None or before_user is None or not asked.partition(USER)[0].endswith(before_user):
        return None
    behind_system = _between(told, SYSTEM, USER, "", before_user)
    before_system, opening = told.partition(SYSTEM)[0], asked.partition(USER)[0].removesuffix(before_user)
    if behind_system is None:
        return None
    around = {"system": (before_system, behind_system), "user": (before_user, behind_user), "assistant": (before_answer, behind_answer)}
    frame = Frame(opening, around, generation)
    tried = [turns[:1], turns, [system, *turns], [*turns, _turn("assistant", "a"), _turn("user", 'b\n\nc {{ d }} "e"')]]
    if any(frame.render(each) != _text(prompt, each, True) for each in tried):
        return None
    return _without_beginning(frame, prompt.tokenizer.bos_token) if vocabulary.add_bos else frame


def _without_beginning(frame: Frame, bos: str) -> Frame:
    before, behind = frame.around["system"]
    first = frame.opening if frame.opening else frame.around["user"][0]
    assert first.startswith(bos), "llama.cpp puts a token in front only where the template does"
    around = frame.around | {"system": (before.removeprefix(bos), behind)}
    return Frame(frame.opening.removeprefix(bos), around, frame.generation)


def _between(text: str, first: str, second: str, start: str, end: str) -> str | None:
    """What stands between two texts, without its start and its end; None where it does not begin and end so."""
    between = text.partition(first)[2].partition(second)[0]
    fits = between.startswith(start) and between.endswith(end) and len(between) >= len(start) + len(end)
    return between[len(start) : len(between) - len(end)] if fits else None


def _text(prompt: Prompt, turns: list[Turn], asked: bool) -> str:
    return chat_template.render(prompt.tokenizer, turns, None, asked)


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}


def _quoted(text: str) -> str:
    """A piece of text in a Go template; what JSON writes of a text, Go reads."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _value(text: str) -> str:
    """A text in a Modelfile: Ollama takes it from between the first and the last quotation marks, and knows no escapes."""
    marks = '"""' if '"' in text else '"'
    return f"{marks}{text}{marks}"
