"""Which mentions stand near a word that takes them back: the rules of NegEx and ConText, in a few lines.

A cue before or after a mention reaches six words, not across the end of a sentence nor past "but" and its like; a word for a
relative, an earlier disease or a plan reaches to the end of its sentence. Cues inside a mention ("no evidence of disease") are none.
After Chapman et al. 2001 and Harkema et al. 2009; the lists are our own, less the words that
were wrong more often than right on training rows ("then", "previous", "discussed").
"""

import re
from bisect import bisect_left
from typing import NamedTuple

from data.scoring.dictionary import TOKEN, Mention, mentions, tokens

WINDOW = 6  # words
BEFORE = """
no; not; without; negative for; absence of; free of; never; excluded; exclude; rules out; ruled out; rule out;
no evidence of; no sign of; fails to show; lacks; possible; possibly; probable; probably; suspicious for; suspected; query;
indeterminate; equivocal; cannot exclude; question of; concern for; worrisome for; may represent; awaiting; pending; rather than
"""
AFTER = """
not detected; not found; not seen; not present; negative; absent; was ruled out; is ruled out; were ruled out; excluded; wild type;
wild-type; unlikely; not confirmed; pending; awaited; insufficient; not performed; declined; refused; was considered;
was discussed; is planned; was planned; never started; not started; not given; deferred; indeterminate; equivocal; of uncertain
significance; is possible; cannot be excluded; proved benign; before
"""
WHOLE_SENTENCE = """
mother; father; sister; brother; aunt; uncle; grandmother; grandfather; cousin; daughter; son; family; familial; relative; relatives;
fhx; fh; history of; prior; remote; years ago; in the past; planned; plan; plans; planning; will; considered; considering;
consider; proposed; recommended; offered; declined; declines; refused; candidate for; eligible for; hoped; hope; expected;
aim; goal; may benefit; if
"""
BREAKS = {"but", "however", "although", "though", "except", "whereas"}
SENTENCE_END = re.compile(r"[.;?!](?=\s|$)|\n(?=\s*[^a-z\s])")  # a line that goes on in small letters was only wrapped


class Cue(NamedTuple):
    first: int
    last: int
    reach: str  # before, after or sentence


def _cues(text: str) -> list[list[str]]:
    return [tokens(cue) for cue in " ".join(text.split()).split("; ")]


CUES = {"before": _cues(BEFORE), "after": _cues(AFTER), "sentence": _cues(WHOLE_SENTENCE)}


def unnegated_mentions(text: str) -> list[Mention]:
    """The mentions in a text that no cue takes back."""
    text_tokens = tokens(text)
    folded, all_mentions = [token.casefold() for token in text_tokens], mentions(text_tokens)
    inside = {position for mention in all_mentions for position in range(mention.first, mention.last + 1)}
    numbers = sentences(text)
    near = [cue for cue in cues(folded) if not inside & set(range(cue.first, cue.last + 1))]
    return [mention for mention in all_mentions if not any(reaches(cue, mention, folded, numbers) for cue in near)]


def sentences(text: str) -> list[int]:
    """The number of the sentence or line that each token of the text stands in."""
    ends = [match.start() for match in SENTENCE_END.finditer(text)]
    return [bisect_left(ends, match.start()) for match in TOKEN.finditer(text)]


def cues(folded: list[str]) -> list[Cue]:
    """All cues among the tokens."""
    return [
        Cue(position, position + len(words) - 1, reach)
        for reach, cue_words in CUES.items()
        for words in cue_words
        for position, token in enumerate(folded)
        if token == words[0] and folded[position : position + len(words)] == words
    ]


def reaches(cue: Cue, mention: Mention, folded: list[str], numbers: list[int]) -> bool:
    """Whether the cue takes the mention back."""
    if numbers[cue.first] != numbers[mention.first]:
        return False
    if cue.reach == "sentence":
        return True
    before = cue.last < mention.first
    between = folded[cue.last + 1 : mention.first] if before else folded[mention.last + 1 : cue.first]
    words = [token for token in between if token[0].isalnum()]
    return before == (cue.reach == "before") and len(words) <= WINDOW and not BREAKS & set(between)
