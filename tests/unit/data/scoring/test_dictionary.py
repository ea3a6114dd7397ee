"""The dictionary finds what is spelled, whatever it means; the negation rules take back what is near a cue."""

import pytest

from data.generator.spelling import spellings
from data.scoring.dictionary import mentions, tokens, vocabulary
from data.scoring.negation import unnegated_mentions


def mentioned(text, field=None):
    text_tokens = tokens(text)
    return [mention.value for mention in mentions(text_tokens) if field in (None, mention.field)]


def unnegated(text):
    return [mention.value for mention in unnegated_mentions(text)]


def test_every_spelling_of_the_knowledge_base_is_found_as_its_value():
    missed = []
    for name, values in vocabulary().items():
        for value in values:
            for spelling in spellings(name, value):
                if spelling.pattern or (name == "stage" and spelling.text == value):
                    continue
                if value not in mentioned(f"Seen: {spelling.text}.", name):
                    missed.append((name, value, spelling.text))
    assert missed == []


@pytest.mark.parametrize(
    "text, values",
    [
        ("PSA of 14.0 ug/L", ["PSA 14.0 ng/mL"]),
        ("AFP 1,204 ng/mL.", ["AFP 1204 ng/mL"]),
        ("M-spike 20 g/L", ["M-protein 2.0 g/dL"]),
        ("PD\u2011L1 TPS 60 percent", ["PD-L1 60%"]),
        ("EGFR p.Leu858Arg", ["EGFR L858R"]),
        ("given Keytruda", ["pembrolizumab"]),
        ("KEYTRUDA WAS GIVEN", ["pembrolizumab"]),
        ("PD after SD", ["progressive disease", "stable disease"]),
        ("PD-L1 was not tested, pd", []),
        ("stage IIIA", ["IIIA"]),
        ("Stage: IIIA", ["IIIA"]),
        ("I gave IV fluids", []),
        ("pathologic complete response", ["pathologic complete response"]),
    ],
)
def test_what_is_found(text, values):
    assert mentioned(text) == values


@pytest.mark.parametrize(
    "text, values",
    [
        ("No liver metastases. Bone metastases.", ["bone"]),
        ("no evidence of disease", ["no evidence of disease"]),
        ("Possible liver lesion", []),
        ("Liver: not seen", []),
        ("Her mother took pembrolizumab for years, and many other drugs, until nivolumab", []),
        ("Pembrolizumab was declined. Nivolumab given", ["nivolumab"]),
        ("No fever, no cough, no weight loss to speak of, metastases in the liver", ["liver"]),
        ("no change in the bone but new in the liver", ["liver"]),
        ("No metastases in the liver\nBone: metastases", ["bone"]),
        ("No metastases in the liver or the\nbone", []),
        ("EGFR p.Leu858Arg was not detected", []),
        ("ER negative, PR positive", ["ER negative", "PR positive"]),
    ],
)
def test_what_is_believed(text, values):
    assert unnegated(text) == values
