"""How long rows may be for the model: checked on the laptop, and again before training."""

from pathlib import Path

from conf.problem import Problem
from conf.schema import Data
from trainer.rows import description
from trainer.rows.prompt import Example

CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")  # by families; the first is usual


def check_token_limits(folder: Path, training: list[Example], scored: list[Example], data: Data) -> None:
    """A Problem where a row has a token without an embedding, or more tokens than the model's context."""
    _check_limits(description.config(folder), training, scored, data.answer_limit)


def check_prompts(config: dict, prompts: list[Example], answer: int) -> None:
    """The same for prompts to a finished run's model: one that is too long is refused."""
    try:
        _check_limits(config, prompts, prompts, answer)
    except Problem as problem:
        raise Problem(
            problem.what, "shorten the text or leave it out: what this model answers past that is not what it learned", "bad_data"
        ) from None


def _check_limits(whole: dict, training: list[Example], scored: list[Example], answer: int) -> None:
    config = whole | (whole.get("text_config") or {})
    if isinstance(size := config.get("vocab_size"), int):
        _check_vocabulary(size, [*training, *scored])
    if context := _context(config):
        _check_context(context, [*training, *scored])
        _check_rope_scaling(config, [*training, *scored], scored, answer)
        if not any(key.startswith("rope") or key == "rotary_dim" for key in config):  # learned positions: there are no further ones
            _check_answer_length(context, scored, answer)


def _check_vocabulary(size: int, examples: list[Example]) -> None:
    for example in examples:
        beyond = max((*example.prompt, *example.completion))
        if beyond >= size:
            what = f"row {example.row.id} has token {beyond}, and the model has {size} embeddings (0 to {size - 1})"
            hint = "its tokenizer has tokens that were added later: use the model that they were added to, or take them out of the rows"
            raise Problem(what, hint, "bad_data")


def _context(config: dict) -> int | None:
    """The length of the model's context in tokens, with RoPE scaling."""
    stated = next((config[key] for key in CONTEXT if isinstance(config.get(key), int)), None)
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    original, factor = scaling.get("original_max_position_embeddings"), scaling.get("factor")
    if stated and isinstance(factor, int | float):
        return max(stated, int((original or stated) * factor))
    return stated


def _check_context(context: int, examples: list[Example]) -> None:
    long = max(examples, key=len)
    if len(long) > context:
        what = f"row {long.row.id} has {len(long)} tokens, and the model reads at most {context}"
        hint = f"leave such rows out: `data.max_length={context} data.too_long=drop`; or train a model that reads more"
        raise Problem(what, hint, "bad_data")


def _check_rope_scaling(config: dict, examples: list[Example], scored: list[Example], answer: int) -> None:
    """A Problem for dynamic RoPE scaling: after one long row, transformers 5 also scales the positions of the next rows.

    LongRoPE has two forms of positions, for short rows and for long ones. A row is trained in one of them; an answer that begins in
    one form and ends in the other was never trained."""
    kind, original = length_dependent_rope(config) or ("", 0)
    if kind == "dynamic":
        longest = max([*map(len, examples), *(len(example.prompt) + answer for example in scored)])
        if longest > original:
            what = (
                f"a row and its answer come to {longest} tokens; past {original} this model stretches positions by the longest row before"
            )
            room = max(original - answer, 1)
            raise Problem(f"{what}, so no row is what it is alone", f"keep within: `data.max_length={room} data.too_long=drop`", "bad_data")
    if kind == "longrope" and (over := [row for row in scored if len(row.prompt) <= original < len(row.prompt) + answer]):
        what = f"row {over[0].row.id} to score has {len(over[0].prompt)} tokens and up to {answer} in its answer: past {original}"
        room = original - max(len(row.prompt) for row in over)
        hint = f"`data.max_new_tokens={room}`" if room else f"`data.max_length={original - answer} data.too_long=drop`"
        raise Problem(f"{what} this model (LongRoPE) writes positions in another form", f"keep answers within: {hint}", "bad_data")


def length_dependent_rope(config: dict) -> tuple[str, int] | None:
    """How the model's positions depend on the longest row of a batch ("dynamic", "longrope"), and past how many tokens they do."""
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    for part in (scaling, *scaling.values()):
        kind = (part.get("rope_type") or part.get("type") or "") if isinstance(part, dict) else ""
        if kind in ("longrope", "su") or "dynamic" in kind:  # Phi-3 called it su
            original = part.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
            return "dynamic" if "dynamic" in kind else "longrope", original or config["max_position_embeddings"]
    return None


def _check_answer_length(context: int, scored: list[Example], answer: int) -> None:
    long = max((len(example.prompt) for example in scored), default=0)
    if long + answer > context:
        room, what = context - long, f"the longest prompt to score has {long} tokens, and the model reads {context}"
        hint = f"`data.max_new_tokens={room}`" if room > 0 else f"`data.max_length={context - answer} data.too_long=drop`"
        raise Problem(f"{what}: data.max_new_tokens={answer} are too many", hint, "bad_data")
