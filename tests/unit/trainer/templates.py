"""TRL's chat templates, and where training puts an answer in each: beside what transformers itself writes of the same conversation.

    python -m tests.unit.trainer.templates     writes docs/TEMPLATES.md anew (a minute)

The templates are those of TRL's package, fetched once into .cache/trl; none of them is kept here.
"""

import re
import subprocess
import sys
from pathlib import Path

from tokenizers import AddedToken
from transformers import AutoTokenizer

from conf import load
from conf.problem import Problem
from conf.schema import LossOn
from data.rows import Row, normalise
from trainer.rows import prompt

ROOT = Path(__file__).parents[3]
PAGE, PLACE, PACKAGE = ROOT / "docs/TEMPLATES.md", ROOT / ".cache/trl", "trl==1.16.0"
TAG = re.compile(r"<[^<>\s]{2,40}>|\[[A-Z/_|a-z]{3,20}\]")
ASKED, ANSWERED = "What is the capital of Chad?", "It is N'Djamena."
ROW = normalise({"prompt": ASKED, "completion": ANSWERED}, "one turn")
SAID = [("user", "And of Peru?"), ("assistant", "It is Lima."), ("user", ASKED), ("assistant", ANSWERED)]
TALK = normalise({"messages": [{"role": role, "content": text} for role, text in SAID]}, "a conversation")
# Of DeepSeek's templates: what they write before a finished answer, and that with the thought closed that generation starts with.
OPENED, CLOSED = "'<｜Assistant｜>' + content", "'<｜Assistant｜><think>\\n\\n</think>\\n\\n' + content"
HEAD = """# Chat templates

Where training puts an answer in each chat template of {}, held against what transformers writes of the same
conversation: the prompt is what generation starts from, prompt and answer are what the template writes for the finished conversation,
and the answer ends with the stop token. This page is made by `python -m tests.unit.trainer.templates`;
`tests/unit/trainer/rows/test_templates_of_trl.py` (in `make test-all`) makes it again. Of {}, one turn is right in {}, the last answer of a
conversation in {}, each of its answers in {}; the others are refused with what to do. Silently wrong: {}.

| template | one turn | last answer | every answer | stands before the answer |
|---|---|---|---|---|
"""
FOOT = """
## A template of your own
A template that starts generation with an open thought and writes a finished answer without one (R1 distillates) is fixed in a copy of
it. Save the model's `chat_template` as a file, write before the answer what generation starts with and what closes it, and name the file:
`inv plan -- data.chat_template=mended.jinja` shows the first row as it will be learned.

```
- {{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}
+ {{'<｜Assistant｜><think>\\n\\n</think>\\n\\n' + content + '<｜end▁of▁sentence｜>'}}
```
"""
KWARGS = re.compile(r"data\.chat_template_kwargs=(\{.*?\})")


def fetched() -> Path:
    """The folder of TRL's templates."""
    if not (PLACE / "trl").is_dir():
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(PLACE), PACKAGE], check=True)
    return PLACE / "trl/chat_templates"


def read(template: str, tiny: Path):
    """A tokenizer with this template, the tags that it writes as tokens of their own, and the one that it ends an answer with."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = template
    turns = [{"role": role, "content": text} for role, text in SAID]
    text = tokenizer.apply_chat_template(turns, tokenize=False) + tokenizer.apply_chat_template(
        turns[:3], tokenize=False, add_generation_prompt=True
    )
    tags = sorted(set(TAG.findall(text)) - {tokenizer.bos_token})
    tokenizer.add_tokens([AddedToken(tag, special="think" not in tag, normalized=False) for tag in tags])
    behind = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(ANSWERED)[2]
    ends = [tag for tag in TAG.findall(behind) if "RESPONSE" not in tag]
    return tokenizer, [tokenizer.convert_tokens_to_ids(ends[0]) if ends else tokenizer.eos_token_id]


def verdict(template: str, tiny: Path, kwargs: str = "{}") -> list[str]:
    """For one turn, the last answer of a conversation and each of its answers: right, or why it is refused; then what stands before it."""
    try:
        tokenizer, stops = read(template, tiny)
        data = load.load(["cloud=twin", f"data.chat_template_kwargs={kwargs}"]).data
        rendering = prompt.Prompt(tokenizer, stops, data)
    except Exception as error:
        rendering = None
        why = f"does not render: {type(error).__name__}" if not isinstance(error, Problem) else error.what
    if rendering is None:
        return [f"refused: {why}"] * 3 + [""]
    cases = ((ROW, LossOn.last_answer), (TALK, LossOn.last_answer), (TALK, LossOn.every_answer))
    return [_judged(rendering, row, learn) for row, learn in cases] + [repr(rendering.frame.lead) if rendering.frame.lead else ""]


def _judged(template: prompt.Prompt, row: Row, learn: LossOn) -> str:
    try:
        example = template.example(row, learn)
    except Problem as problem:
        mend = KWARGS.search(problem.hint or "")
        return f"refused: {problem.what}" + (f" `{mend[0]}`" if mend else "")
    return "right" if _right(template, example, row) else "WRONG"


def _right(template: prompt.Prompt, example: prompt.Example, row: Row) -> bool:
    """Whether transformers writes the same, and the model would be asked and would stop as it is trained."""
    tokenizer, answer = template.tokenizer, {"role": "assistant", "content": row.completion}
    generation_prompt = tokenizer.apply_chat_template(row.messages, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*row.messages, answer], tokenize=False)
    learned, stop = tokenizer.decode(example.completion[:-1]), tokenizer.decode(example.completion[-1:])
    written = whole.startswith(generation_prompt + learned) and (
        whole.startswith(generation_prompt + learned + stop) or not whole[len(generation_prompt + learned) :].strip()
    )
    served = example.prompt == tokenizer(generation_prompt, add_special_tokens=False)["input_ids"]
    return written and served and template.answer(example.completion) == (row.completion, True) and _earlier(template, example, row)


def _earlier(template: prompt.Prompt, example: prompt.Example, row: Row) -> bool:
    """Whether earlier answers with loss are what transformers' own mask says, else what the model would have generated."""
    tokenizer, (question, answer, *_) = template.tokenizer, row.messages * 2
    for start, end in example.earlier:
        learned = tokenizer.decode(example.prompt[start:end])
        if "generation %}" in tokenizer.chat_template or "generation -%}" in tokenizer.chat_template:
            chat = [*row.messages, {"role": "assistant", "content": row.completion}]
            rendered = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
            masked = "".join(
                tokenizer.decode([t]) for t, one in zip(rendered["input_ids"], rendered["assistant_masks"], strict=True) if one
            )
            return masked.startswith(learned) and answer["content"] in learned
        before = tokenizer.apply_chat_template([question], tokenize=False, add_generation_prompt=True)
        if tokenizer.decode(example.prompt[:start]) != before or not tokenizer.apply_chat_template(
            [question, answer], tokenize=False
        ).startswith(before + learned):
            return False
    return True


def table(tiny: Path) -> dict[str, list[str]]:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(fetched().glob("*.jinja"))}
    verdicts = {name: verdict(text, tiny) for name, text in texts.items()}
    for name, text in texts.items():
        if mend := KWARGS.search(verdicts[name][0]):
            verdicts[f"{name} with {mend[1]}"] = verdict(text, tiny, mend[1])
        if OPENED in text:
            verdicts[f"{name}, mended as below"] = verdict(text.replace(OPENED, CLOSED), tiny)
    return dict(sorted(verdicts.items()))


def page(verdicts: dict[str, list[str]]) -> str:
    right = [sum(cells[place] == "right" for cells in verdicts.values()) for place in range(3)]
    head = HEAD.format(PACKAGE, len(verdicts), *right, sum("WRONG" in cells for cells in verdicts.values()))
    return head + "".join(f"| `{name}` | {' | '.join(_short(cells))} |\n" for name, cells in verdicts.items()) + FOOT


def _short(cells: list[str]) -> list[str]:
    one, last, every, lead = (cell.replace("the model's chat template ", "").replace("|", "\\|") for cell in cells)
    return [one, *("as one turn" if other == one and other != "right" else other for other in (last, every)), lead]


def main() -> None:
    PAGE.write_text(page(table(ROOT / ".cache/models/tiny")), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
