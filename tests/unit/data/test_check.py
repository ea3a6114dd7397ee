"""`inv data.check`: what it finds in rows of any origin, and what a run would stop at."""

import json

import pytest

from data import check
from data.check import LengthCounter, Limits, count_words

LIMITS = Limits(row=100, answer=20, drop=False)
TOKENS = LengthCounter(lambda row: (len(row.text.split()), len(row.completion.split())), "tokens of a test")
FLAT = {
    "cancer_type": "lung adenocarcinoma",
    "stage": "IV",
    "gene_mutation": None,
    "biomarker": "PD-L1 60%",
    "treatment": "osimertinib; stereotactic radiosurgery",
    "response": None,
    "metastasis_site": "brain and bone",
}


def row(text, **output):
    return {"instruction": "Give the facts.", "input": text, "output": output or {"city": "Oslo"}}


def lines(number, text="note"):
    return [row(f"{text} {index} " + " ".join(f"{text}{index}word{place}" for place in range(20))) for index in range(number)]


@pytest.fixture
def checked(tmp_path):
    def run(train, held_out, fields=("city",), length_counter=TOKENS, limits=LIMITS):
        paths = []
        for name, content in (("train", train), ("held_out", held_out)):
            paths.append(tmp_path / f"{name}.jsonl")
            texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in content]
            paths[-1].write_text("\n".join(texts) + "\n", encoding="utf-8")
        return check.check_files(*paths, fields and list(fields), length_counter, limits)

    return run


def finding_with(findings, verdict, part):
    """The one finding of that verdict that says `part`."""
    fitting = [finding for finding in findings if finding.verdict == verdict and part in finding.what]
    assert len(fitting) == 1, check.text(findings)
    return fitting[0]


def test_good_rows_are_good(checked):
    findings = checked(lines(5), lines(2, "other"))
    assert {finding.verdict for finding in findings} == {"good"}


def test_white_space_around_an_answer_is_reported_as_it_is_learned(checked):
    rows = [
        {"prompt": f"{word} is where?", "completion": answer}
        for word, answer in (("Lima", " Peru"), ("Oslo", "Norway\n"), ("Rome", "Italy"))
    ]
    finding = finding_with(checked(rows, [rows[2] | {"prompt": "Bonn?"}], fields=None), "look", "white space, which is learned: 2 of 3")
    assert len(finding.details) == 2


def test_more_rows_that_are_not_read_here_are_reported(tmp_path):
    for name in ("train", "held_out"):
        (tmp_path / name).with_suffix(".jsonl").write_text(json.dumps({"prompt": name, "completion": "c"}) + "\n")
    files = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    findings = check.check_files(*files, None, TOKENS, LIMITS, also={"hub:owner/name:train": None})
    finding_with(findings, "look", "data.also: hub:owner/name:train is not checked here")


def test_every_bad_row_is_reported_up_to_twenty_and_then_counted(checked):
    findings = checked([*lines(2), *["{"] * 22, {"prompt": "p"}], lines(1, "other"))
    finding = finding_with(findings, "wrong", "rows that cannot be used: 23 (and 2 that can)")
    assert len(finding.details) == 21 and finding.details[-1] == "... and 3 more"
    assert "train.jsonl:3: the line is not JSON" in finding.details[0] and "put one whole JSON object" in finding.details[0]


def test_a_file_of_nothing_but_bad_rows_does_not_hide_the_other(checked):
    findings = checked(["{"], lines(1))
    finding_with(findings, "wrong", "data.train")
    finding_with(findings, "good", "data.validation: length")


def test_rows_that_are_too_long_stop_the_run_unless_they_are_dropped(checked):
    train = [*lines(2), row("word " * 120)]
    finding = finding_with(checked(train, lines(1, "other")), "wrong", "data.max_length=100: 1;")
    assert finding.details[0].endswith(":3: 21 too many")
    finding_with(checked(train, lines(1, "other"), limits=Limits(100, 20, drop=True)), "look", "they would be left out, none is cut")


def test_answers_that_a_model_could_not_finish_are_reported(checked):
    long = row("a", city="word " * 30)
    finding = finding_with(checked(lines(2), [long]), "look", "data.max_new_tokens=20")
    assert finding.details[0].endswith("too many")


def test_without_the_tokenizer_words_are_counted_and_it_is_reported_why(checked):
    finding = finding_with(
        checked(lines(2), lines(1, "other"), length_counter=count_words("no tokenizer here")),
        "look",
        "data.train: length of a row in words",
    )
    assert finding.details == ["no tokenizer here"]


def test_lengths_are_spread(checked):
    finding = finding_with(
        checked([row("w " * size) for size in range(1, 101)], lines(1), limits=Limits(200, 20, False)), "good", "data.train: length"
    )
    assert "least 2, median 52, 95 % up to 96, most 101" in finding.what


def test_a_field_that_no_answer_has_names_those_there_are(checked):
    finding = finding_with(checked([row("a", town="Oslo", year=3)], [row("b", city="Oslo")]), "wrong", "no answer has the field 'city'")
    assert "`'data.fields=[town,year]'`" in finding.what


def test_a_field_that_some_answers_lack_or_write_in_another_type_is_reported(checked):
    findings = checked([row("a", city="Oslo"), row("b", city=["Oslo"]), row("c", town="Oslo")], lines(1))
    assert finding_with(findings, "look", "without the field 'city'").details[0].endswith(":3")
    finding_with(findings, "look", "'city' is sometimes a list of text and sometimes text")


def test_text_answers_cannot_have_fields(checked):
    text = {"prompt": "Why?", "completion": "Because."}
    finding_with(checked([text, *lines(1)], lines(1, "other")), "wrong", "plain text where data.fields asks for keys of an object: 1 of 2")
    assert {finding.verdict for finding in checked([text], lines(1), fields=None)} == {"good"}


def test_copies_and_near_copies_are_distinguished(checked):
    text = " ".join(f"word{number}" for number in range(60))
    near = text.replace("word30 ", "")
    findings = checked([row(text), row(text), row(text, city="Rome"), row(near), *lines(3)], lines(1, "other"))
    assert "with different answers" in finding_with(findings, "look", "prompts that several rows have: 1").details[0]
    assert finding_with(findings, "look", "nearly the same: 3").details[0].endswith("of their shingles")


def test_leaks_are_whole_prompts_and_runs_of_thirteen_words(checked):
    train = lines(40)
    copied = row("something else first, " + " ".join(train[3]["input"].split()[4:17]))
    twelve = row("something other first, " + " ".join(train[4]["input"].split()[4:16]))
    findings = checked(train, [train[0], copied, twelve, *lines(1, "other")])
    assert finding_with(findings, "look", "also a training row's: 1 of 4").details[0].endswith("train.jsonl:1")
    assert finding_with(findings, "look", "13 words in a row that a training row has: 2 of 4").details[1].count("note3word") == 13


def test_the_wording_of_the_task_is_no_leak(checked):
    wording = "Read the following text with care and answer with the one word that says what it is about: "
    train = [{"prompt": f"{wording}{number}", "completion": "{}"} for number in range(40)]
    findings = checked(train, [{"prompt": f"{wording}forty", "completion": "{}"}], fields=None)
    finding_with(findings, "good", "no held-out row has its prompt")


def test_the_same_rows_for_training_and_validation_are_wrong(checked):
    finding_with(checked(lines(3), lines(3)), "wrong", "are the same rows")


def test_spellings_of_one_value_are_put_together_and_different_results_are_not(checked):
    values = [
        "brain, bone",
        "bone and brain",
        "Brain; bone",
        "ER+",
        "ER-",
        "PD-L1 1%",
        "PD-L1 >1%",
        "III A",
        "iii-A",
        "IIIA",
        "5.1 ng/mL",
        "1.5 ng/mL",
    ]
    findings = checked([row(f"text {number} of its own", city=value) for number, value in enumerate(values)], lines(1))
    finding = finding_with(findings, "look", "spelled in several ways: 2")
    assert finding.details == ["brain, bone (1) | bone and brain (1) | Brain; bone (1)", "III A (1) | iii-A (1) | IIIA (1)"]


def test_labels_report_values_empties_and_what_is_new(checked):
    train = [row("a", city="Oslo"), row("b", city=None), row("c", city=["Oslo", "Rome"]), row("d", city=[])]
    finding = finding_with(checked(train, [row("e", city="Bonn")], length_counter=TOKENS), "good", "city: ")
    assert finding.what == "city: 3 values, 1 of them in held-out rows only; empty in 50% and 0%; most often Oslo (2), Rome (1), Bonn (1)"


def test_seven_keys_of_strings_or_nulls_pass_as_they_are(checked):
    train = [row(f"A note of its own, number {number}.", **FLAT) for number in range(3)]
    findings = checked(train, [row("Another note.", **FLAT | {"stage": None})], fields=FLAT)
    assert {finding.verdict for finding in findings} == {"good"}


def test_the_page_has_a_line_for_each_finding_with_its_details_beneath():
    page = check.text([check.Finding("look", "that", ["here", "there"]), check.Finding("good", "this")])
    assert page.splitlines() == ["look  that", "          here", "          there", "good  this"]


def receipts(number, total, start=0):
    texts = ("Kiosk", "Luna", "Nordlys", "Huber", "Verde", "Metro", "Pilot", "Emma", "Bottle", "Market", "Leaf", "Harbour")
    return [
        row(f"{texts[index % 12]} {index} " + " ".join(f"x{start}w{index}p{place}" for place in range(20)), total=total(index))
        for index in range(start, start + number)
    ]


def test_a_number_in_one_file_and_text_in_the_other_is_reported(checked):
    findings = checked(receipts(5, float), receipts(3, lambda index: f"{index}.40", 50), fields=("total",))
    finding_with(
        findings, "look", "total: a number in data.train and text in data.validation; the model learns to write it as in data.train"
    )


def test_whole_numbers_and_others_are_one_type_and_objects_of_a_list_have_a_name(checked):
    numbers = checked(receipts(5, lambda index: index if index % 2 else index + 0.5), receipts(3, float, 50), fields=("total",))
    assert [finding for finding in numbers if finding.verdict != "good"] == []
    mixed = checked(receipts(4, lambda index: [{"a": 1}] if index % 2 else ["a"]), receipts(3, lambda _: [{"a": 2}], 50), fields=("total",))
    finding_with(mixed, "look", "data.train: 'total' is sometimes a list of objects and sometimes a list of text; use one of them")


def test_a_row_without_a_text_is_reported_where_others_have_one(checked):
    bare = {"instruction": "Give the facts.", "input": "", "output": {"city": "Oslo"}}
    (place,) = finding_with(checked([*lines(5), bare], lines(2, "other")), "look", "no text: 1 of 6").details
    assert place.endswith("train.jsonl:6")


def test_a_row_far_longer_than_all_others_is_reported(checked):
    long = row(" ".join(f"long{place}" for place in range(400)))
    findings = checked([*lines(30), long], lines(2, "other"), limits=Limits(1000, 20, drop=False))
    assert "far longer" in check.text(findings)
    finding_with(findings, "look", "data.train: rows far longer than all others: 1")


def test_few_values_are_all_named(checked):
    """`Euro` and the sign are one currency, which no spelling shows: the reader sees it."""
    names = ("EUR", "Euro", "€", "CHF")
    findings = checked(receipts(8, lambda index: names[index % 4]), receipts(4, lambda index: names[index % 4], 50), fields=("total",))
    assert all(name in next(finding.what for finding in findings if finding.what.startswith("total:")) for name in names)


def test_an_instruction_in_the_prompt_s_column_is_no_leak(checked):
    """First use: 75 of 80 rows. The end of the instruction and a shop's name of three words are in some rows, and are no row's text."""
    shops = ("Green Leaf Market", "Cafe Luna Nord", "Pilot Book Shop", "Metro Hard Ware", *(f"Shop Number {n}" for n in range(16)))
    wording = "Read the receipt below and answer with one JSON object that has the keys shop and total and nothing else please"

    def rows(number, start):
        texts = [f"{shops[n % 20]} " + " ".join(f"s{start}n{n}w{place}" for place in range(20)) for n in range(number)]
        return [{"prompt": f"{wording}\n{text}", "completion": '{"city": "Oslo"}'} for text in texts]

    findings = checked(rows(60, 0), rows(10, 1))
    assert not [finding for finding in findings if finding.what.startswith("leak")], check.text(findings)
    copied = checked(rows(60, 0), [*rows(9, 1), rows(60, 0)[3] | {"completion": '{"city": "Rome"}'}])
    finding_with(copied, "look", "held-out rows with 13 words in a row")


def test_a_field_of_sentences_is_told_what_measures_it(checked):
    def mails(number, word):
        return [row(f"{word} {n}", summary=f"The customer of {word} {n} wants his money back for a lamp", order=n) for n in range(number)]

    fields = ("summary", "order")
    found = finding_with(checked(mails(6, "lamp"), mails(4, "shop"), fields, count_words("")), "look", "its answers are sentences").what
    assert "summary: its answers are sentences, most of some 12 words, and exact match is the wrong measure for sentences" in found
    assert "`'data.fields=[order]'` scores the other fields alone" in found and "`data.fields=null`" in found


def test_long_labels_that_come_again_and_again_and_short_texts_are_no_sentences(checked):
    label = "moderately differentiated adenocarcinoma of the left upper lobe of the lung"
    same = [row(f"note {n}", kind=label, city=f"Oslo {n}") for n in range(6)]
    found = checked(same[:4], [row(f"other {n}", kind=label, city=f"Rome {n}") for n in range(4)], ("kind", "city"), count_words(""))
    assert "sentences" not in check.text(found)
