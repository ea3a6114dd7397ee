"""Answers held to a JSON Schema: of all tokens only those may come next with which the answer can still become what the schema asks for.

An answer that is not complete when it has `max_new_tokens` is ended in the shortest way that the schema allows, so that it is valid, too;
it counts as not stopped. Which tokens may come next, llguidance says. What the template writes before an answer is filled in.
"""

import torch
from llguidance import LLMatcher, hf
from transformers import LogitsProcessor, LogitsProcessorList

from conf.problem import Problem
from trainer.evaluate import evaluate
from trainer.rows.prompt import Prompt

# White space between tokens of JSON is a matter of taste, but a model must not write it for ever.
OPTIONS = {"whitespace_pattern": r"[ \t\n\r]{0,20}", "whitespace_flexible": True, "lenient": False}
ENDING = 256  # tokens for the end of an answer that was cut; the same in a schema with many keys
ENDS = ('"', "}", "]", ",", "0", "n")  # what ends a value, or is a short one, in this order; n begins null


def grammar(schema: dict) -> str:
    """What llguidance makes of a schema; a Problem where answers cannot be held to it."""
    try:
        made = LLMatcher.grammar_from_json_schema(schema, overrides=OPTIONS)
    except ValueError as error:
        raise _unusable(error) from error
    if invalid := LLMatcher.validate_grammar(made):
        raise _unusable(invalid)
    return made


class JsonSchema:
    """A grammar for one model's answers; a Problem where its tokenizer does not allow that."""

    def __init__(self, grammar: str, prompt: Prompt):
        if not prompt.tokenizer.is_fast:
            what = "answers cannot be held to a schema with this model's tokenizer, which is not one of the tokenizers library"
            raise Problem(what, "leave out `--schema`", "refused")
        self.prompt = prompt
        self.tokenizer = hf.from_tokenizer(prompt.tokenizer, eos_token=prompt.stops)
        self.grammar = grammar
        self.ends = [self.tokenizer.greedy_tokenize(text)[0] for text in ENDS]
        if error := self.matcher().get_error():
            raise _unusable(error)

    def matcher(self) -> LLMatcher:
        return LLMatcher(self.tokenizer, self.grammar, log_level=0)

    def answers(self, model, prompt: Prompt, prompts: list[list[int]], max_new_tokens: int) -> list[evaluate.Answer]:
        """Greedy answers to prompts in tokens, as `evaluate.generate_batch` gives them."""
        lead = prompt.encode(prompt.frame.lead) if prompt.frame.lead else []
        held = HeldTokens(self, max(map(len, prompts)) + len(lead), max_new_tokens, [self.matcher() for _ in prompts])
        processors = LogitsProcessorList([held])
        answers = evaluate.generate_batch(model, prompt, [tokens + lead for tokens in prompts], max_new_tokens + ENDING, processors)
        if not all(ended for _, ended in answers):
            raise Problem("the schema lets an answer go on without an end", "bound what may be nested in it", "bad_data")
        return [(text, not cut) for (text, _), cut in zip(answers, held.cut, strict=True)]


class HeldTokens(LogitsProcessor):
    """Takes the chance of each token that may not come next. One row of the batch has one matcher."""

    def __init__(self, schema: JsonSchema, start: int, limit: int, matchers: list[LLMatcher]):
        self.schema, self.start, self.limit, self.matchers = schema, start, limit, matchers
        self.ended = [False] * len(matchers)
        self.cut = [False] * len(matchers)  # answers that were not complete with `limit` tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        written = input_ids.shape[1] - self.start
        for row, matcher in enumerate(self.matchers):
            if written and not self.ended[row]:
                self._consume(row, matcher, input_ids[row, -1].item())
            if not self.ended[row]:  # behind its end a row is padded
                allowed = self._allowed(row, matcher, at_limit=written >= self.limit)[: scores.shape[1]]
                scores[row, : len(allowed)].masked_fill_(~allowed.to(scores.device), float("-inf"))
                scores[row, len(allowed) :] = float("-inf")
        return scores

    def _consume(self, row: int, matcher: LLMatcher, token: int) -> None:
        self.ended[row] = token in self.schema.prompt.stops
        if not self.ended[row] and not matcher.consume_token(token):
            what = f"an answer cannot be held to the schema any longer: {matcher.get_error()}"
            raise Problem(what, "name a simpler schema", "bad_data")

    def _allowed(self, row: int, matcher: LLMatcher, at_limit: bool) -> torch.Tensor:
        """Which tokens may come next."""
        allowed = torch.zeros(self.schema.tokenizer.vocab_size, dtype=torch.bool)
        if matcher.is_stopped():  # nothing can follow but the end
            allowed[self.schema.prompt.stops] = True
            return allowed
        allowed |= torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8).bool()[: len(allowed)]
        if at_limit:
            self.cut[row] |= not matcher.is_accepting()
            allowed = self._ending(allowed)
        return allowed

    def _ending(self, allowed: torch.Tensor) -> torch.Tensor:
        """Of the tokens that may come next, one that ends the answer soon."""
        shortest = [*self.schema.prompt.stops, *self.schema.ends]
        token = next((token for token in shortest if token < len(allowed) and allowed[token]), None)
        only = torch.zeros_like(allowed)
        only[int(allowed.int().argmax()) if token is None else token] = True
        return only


def _unusable(error: object) -> Problem:
    why = (str(error).splitlines() or ["no reason is told"])[0]
    return Problem(f"answers cannot be held to this schema: {why}", "JSON Schema (2020-12) is read, without remote references", "bad_data")
