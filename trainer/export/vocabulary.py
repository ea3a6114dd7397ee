"""A tokenizer as a GGUF file keeps it: tokens, merges, and the name by which llama.cpp knows how text is split before they apply.

No torch: the laptop sees before a run whether llama.cpp would read its rows in the same tokens.
"""

import json
from dataclasses import dataclass, field

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from conf.problem import Problem
from conf.schema import Recipe
from data.rows import Row
from trainer.rows.prompt import Prompt

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # llama.cpp's kinds of tokens
READ = 64  # rows whose tokens are compared, at the most
WITHOUT = "leave the GGUF file out: `publish.gguf=null`"
SPLITS = {  # by llama.cpp's names: what a text is cut by before merges apply (llama-vocab.cpp), and whether a whole word is looked up first
    "llama-bpe": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        True,
    ),
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        False,
    ),
}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
PLAIN = {  # those of the first byte-level tokenizers, which look no word up first
    "gpt-2": BYTES,
    "smollm": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES]},
}


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of the tokenizer."""

    pre: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    chat_template: str
    ids: dict[str, int] = field(default_factory=dict)  # of the tokens bos, eos and pad
    add_bos: bool = False  # whether llama.cpp puts the bos token in front; where the template does so too, it takes one of them off


def check_gguf(settings: Recipe, config: dict, prompt: Prompt, rows: list[Row]) -> None:
    """Nothing, or a Problem where `publish.gguf` asks for a file from which llama.cpp would read these rows in other tokens."""
    if settings.publish.gguf:
        check_tokens(of(prompt, config["vocab_size"]), prompt, rows)


def of(prompt: Prompt, size: int) -> Vocabulary:
    """The vocabulary of a model with so many embeddings; a Problem where llama.cpp splits text otherwise."""
    tokenizer = prompt.tokenizer
    definition = json.loads(backend(tokenizer).to_str())
    pre, model = _split(definition), definition["model"]
    added = {token["id"]: token for token in definition["added_tokens"]}
    texts = {number: text for text, number in model["vocab"].items()} | {number: token["content"] for number, token in added.items()}
    if max(texts) >= size:
        raise _unsupported(f"it has token {max(texts)}, and the model {size} embeddings")
    numbers = {text: number for number, text in texts.items()}
    named = ((name, getattr(tokenizer, f"{name}_token")) for name in ("bos", "pad"))
    ids = {name: numbers[text] for name, text in named if text in numbers} | {"eos": prompt.stop}
    begins = prompt.tokens([{"role": "user", "content": "a"}])[:1] == [ids.get("bos")]
    return Vocabulary(
        pre,
        [texts.get(number, f"[PAD{number}]") for number in range(size)],
        [UNUSED if number not in texts else _kind(added.get(number)) for number in range(size)],
        [" ".join(pair) for pair in model["merges"]],
        tokenizer.chat_template,
        ids,
        begins and tokenizer("")["input_ids"][:1] == [ids.get("bos")],
    )


def backend(tokenizer) -> Tokenizer:
    """The tokenizer of the library tokenizers, in transformers' or in ours."""
    return getattr(tokenizer, "backend_tokenizer", None) or tokenizer.tokenizer


def check_tokens(vocabulary: Vocabulary, prompt: Prompt, rows: list[Row]) -> None:
    """Nothing, or a Problem where this vocabulary gives other tokens for a row than training does."""
    tokenizer = as_read(vocabulary)
    for row in rows[:: max(1, -(-len(rows) // READ))]:
        if prompt.notes([row]):
            continue  # its control tokens are trained as text, and llama.cpp reads them as control tokens
        pairs = [(prompt.text(row.messages, row.tools), prompt.tokens(row.messages, row.tools))]
        pairs += [(row.completion, prompt.encode(row.completion))]
        for text, tokens in pairs:
            if tokenizer.encode(text, add_special_tokens=False).ids != tokens:
                raise _unsupported(f"llama.cpp would read row {row.id} in other tokens than it is trained in")


def as_read(vocabulary: Vocabulary) -> Tokenizer:
    """The tokenizer that the file describes, as llama.cpp works: made of nothing but what the file holds."""
    regex, looked_up = SPLITS.get(vocabulary.pre, (None, False))
    numbers = {text: number for number, text in enumerate(vocabulary.tokens)}
    pairs = [(first, second) for first, _, second in (merge.partition(" ") for merge in vocabulary.merges)]
    bpe = Tokenizer(models.BPE(numbers, pairs, ignore_merges=looked_up))
    parts: list = [pre_tokenizers.Digits(individual_digits=True)] if vocabulary.pre == "smollm" else []
    parts += [pre_tokenizers.Split(Regex(regex), "isolated")] if regex else []
    bpe.pre_tokenizer = pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex is None)])
    bpe.decoder = decoders.ByteLevel()
    for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [text for text, each in zip(vocabulary.tokens, vocabulary.kinds, strict=True) if each == kind]
        bpe.add_tokens([AddedToken(text, normalized=False, special=special) for text in added])
    return bpe


def _split(definition: dict) -> str:
    """llama.cpp's name for how this tokenizer splits a text."""
    model = definition["model"]
    if model["type"] != "BPE" or model.get("byte_fallback"):
        raise _unsupported(
            f"it is of the kind {model['type']}{' with bytes as tokens' * bool(model.get('byte_fallback'))}, not byte-level BPE"
        )
    if (normalizer := definition.get("normalizer") or {"type": "NFC"})["type"] != "NFC":  # rows show whether that changes anything
        raise _unsupported(f"it changes text before it reads it ({normalizer['type']})")
    if odd := next((token for token in definition["added_tokens"] if token["lstrip"] or token["rstrip"] or token["single_word"]), None):
        raise _unsupported(f"its token {odd['content']!r} takes spaces beside it along")
    if any(" " in part for pair in model["merges"] for part in pair):
        raise _unsupported("there are spaces in its merges")
    pre_tokenizer, looked_up = _bare(definition["pre_tokenizer"]), bool(model.get("ignore_merges"))
    for name, plain in PLAIN.items():
        if pre_tokenizer == plain and not looked_up:
            return name
    for name, (regex, wanted) in SPLITS.items():
        cut = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        if pre_tokenizer == {"type": "Sequence", "pretokenizers": [cut, BYTES | {"use_regex": False}]} and looked_up is wanted:
            return name
    raise _unsupported(f"it splits text otherwise than {', '.join([*PLAIN, *SPLITS])} do")


def _bare(part: dict | list) -> dict | list:
    """A part of a tokenizer.json without what changes no token."""
    if isinstance(part, list):
        return [_bare(each) for each in part]
    return {key: _bare(value) if isinstance(value, dict | list) else value for key, value in (part or {}).items() if key != "trim_offsets"}


def _kind(added: dict | None) -> int:
    if added is None:
        return NORMAL
    text = added["content"]
    return CONTROL if added["special"] or (text.startswith("<|") and text.endswith("|>")) else USER_DEFINED


def _unsupported(why: str) -> Problem:
    return Problem(f"publish.gguf: the model's tokenizer cannot be written as GGUF: {why}", WITHOUT, "refused")
