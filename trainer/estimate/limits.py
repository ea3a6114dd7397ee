"""What the model's own numbers allow its rows: looked at on the laptop, and again where it is trained."""

from pathlib import Path

from conf.problem import Problem
from conf.schema import Data
from trainer.rows import description
from trainer.rows.prompt import Example

CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")  # by families; the first is usual


def check(folder: Path, training: list[Example], scored: list[Example], data: Data) -> None:
    """A Problem where a row has a token that the model has no embedding for, or more of them than it reads."""
    _check(description.config(folder), training, scored, data.max_new_tokens)


def asked(config: dict, prompts: list[Example], answer: int) -> None:
    """The same where a finished run's model answers: a row that is too long for it is never answered wrongly."""
    try:
        _check(config, prompts, prompts, answer)
    except Problem as problem:
        raise Problem(
            problem.what, "shorten the text or leave it out: what this model answers past that is not what it learned", "bad_data"
        ) from None


def _check(whole: dict, training: list[Example], scored: list[Example], answer: int) -> None:
    config = whole | (whole.get("text_config") or {})
    if isinstance(size := config.get("vocab_size"), int):
        _within_vocabulary(size, [*training, *scored])
    if context := _context(config):
        _within_context(context, [*training, *scored])
        _never_stretched(config, [*training, *scored], scored, answer)
        if not any(key.startswith("rope") or key == "rotary_dim" for key in config):  # a table of positions, which ends
            _room_for_answers(context, scored, answer)


def _within_vocabulary(size: int, examples: list[Example]) -> None:
    for example in examples:
        beyond = max((*example.prompt, *example.completion))
        if beyond >= size:
            what = f"row {example.row.id} has token {beyond}, and the model has {size} embeddings (0 to {size - 1})"
            hint = "its tokenizer has tokens that were added later: use the model that they were added to, or take them out of the rows"
            raise Problem(what, hint, "bad_data")


def _context(config: dict) -> int | None:
    """How many tokens the model reads; what stretches its positions counts."""
    stated = next((config[key] for key in CONTEXT if isinstance(config.get(key), int)), None)
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    original, factor = scaling.get("original_max_position_embeddings"), scaling.get("factor")
    if stated and isinstance(factor, int | float):
        return max(stated, int((original or stated) * factor))
    return stated


def _within_context(context: int, examples: list[Example]) -> None:
    long = max(examples, key=len)
    if len(long) > context:
        what = f"row {long.row.id} has {len(long)} tokens, and the model reads at most {context}"
        hint = f"leave such rows out: `data.max_length={context} data.too_long=drop`; or train a model that reads more"
        raise Problem(what, hint, "bad_data")


def _never_stretched(config: dict, examples: list[Example], scored: list[Example], answer: int) -> None:
    """Positions that are stretched for a long row stay so for the next ones, which then are not what they are alone (transformers 5).

    Those of LongRoPE have two forms, for short rows and for long ones. A row is learned in one of them; an answer that begins in the
    one and ends in the other was never learned."""
    kind, original = stretched(config) or ("", 0)
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


def stretched(config: dict) -> tuple[str, int] | None:
    """How the model's positions depend on the longest row of a batch ("dynamic", "longrope"), and past how many tokens they do."""
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    for each in (scaling, *scaling.values()):
        kind = (each.get("rope_type") or each.get("type") or "") if isinstance(each, dict) else ""
        if kind in ("longrope", "su") or "dynamic" in kind:  # Phi-3 called it su
            original = each.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
            return "dynamic" if "dynamic" in kind else "longrope", original or config["max_position_embeddings"]
    return None


def _room_for_answers(context: int, scored: list[Example], answer: int) -> None:
    long = max((len(example.prompt) for example in scored), default=0)
    if long + answer > context:
        room, what = context - long, f"the longest prompt to score has {long} tokens, and the model reads {context}"
        hint = f"`data.max_new_tokens={room}`" if room > 0 else f"`data.max_length={context - answer} data.too_long=drop`"
        raise Problem(f"{what}: data.max_new_tokens={answer} are too many", hint, "bad_data")
