"""How long rows are for a model: its own tokenizer and prompt, without its weights and without torch."""

from conf import schema
from data.check import LengthCounter, count_words
from data.rows import Row

INSTALL = "`pip install -r trainer/requirements.txt`"


def length_counter(model: schema.Model, source: str, offline: bool, data: schema.Data | None = None) -> LengthCounter:
    """Counts rows in tokens of `model`, read from `source` (its Hub id, or a folder), or in words with a note that says why."""
    try:
        from transformers import PreTrainedTokenizerFast  # AutoTokenizer would import torch
    except ImportError:
        return count_words(f"tokens are not counted: the trainer's packages are not installed here; {INSTALL}")
    from httpx2 import InvalidURL

    from trainer.rows.prompt import Prompt

    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(source, revision=model.revision, local_files_only=offline)
    except (OSError, ValueError, ImportError, InvalidURL) as error:  # the last two for a proxy that the Hub's client cannot use
        where = "in the cache" if offline else "on the Hub"
        return count_words(f"tokens are not counted: the tokenizer of {model.id} is not {where} ({str(error).splitlines()[0]})")
    prompt = Prompt(tokenizer, [], data)

    def measure(row: Row) -> tuple[int, int]:
        example = prompt.example(row)
        return len(example.prompt), len(example.completion)

    return LengthCounter(measure, f"tokens of {model.id}", notes=prompt.notes)
