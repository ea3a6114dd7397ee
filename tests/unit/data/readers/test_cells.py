"""CSV as spreadsheets write it: every dialect gives the same rows, or a sentence."""

import csv
import io
import random

import pytest

from data.readers.cells import CellError, table
from data.rows import read, scan

ROWS = [("prompt", "completion"), ("What is 2,5+1?", "three; and a half"), ('She said "no"', " two\nlines "), ("tab\there", "a|b")]


def written(separator, quoting=csv.QUOTE_MINIMAL, ends="\r\n") -> str:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=ends).writerows(ROWS)
    return file.getvalue()


def cells(text: str) -> list:
    return [record for _, record in table(text)[1]]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("said", ["", "sep={}\r\n", '"sep={}"\r\n', "SEP={}\n"])
def test_every_separator_is_found_in_the_first_line(tmp_path, separator, quoting, ends, said):
    path = tmp_path / "rows.csv"
    path.write_text(said.format(separator) + written(separator, quoting, ends), encoding="utf-8-sig", newline="")
    assert [(row.messages[0]["content"], row.completion) for row in read(path)] == ROWS[1:]
    path = path.rename(path.with_suffix(".tsv"))
    assert len(read(path)) == 3


def test_a_sep_line_may_name_any_separator():
    assert cells("sep=:\na:b\n1:2\n") == [["a", "b"], ["1", "2"]]


def test_random_cells_come_back_as_they_were():
    draw = random.Random(5)
    for _ in range(300):
        separator = draw.choice(",;\t|")
        rows = [["".join(draw.choice("a\"'\n\r,;\t| é") for _ in range(draw.randrange(6))) for _ in range(3)] for _ in range(3)]
        rows = [row for row in rows if any(cell.strip() for cell in row)]
        file = io.StringIO(newline="")
        csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([["id", "prompt", "completion"], *rows])
        assert cells(file.getvalue())[1:] == rows


@pytest.mark.parametrize("gap", [" ", "  ", "\t"])
def test_spaces_before_and_behind_quotes_are_no_part_of_a_cell(tmp_path, gap):
    path = tmp_path / "rows.csv"
    path.write_text(f'prompt,{gap}completion\n"Who?",{gap}"Me"{gap}\n{gap}"What, then?",{gap}"Well, ""that""."\nWhy?, so \n')
    assert [row.completion for row in read(path)] == ["Me", 'Well, "that".', " so "]


@pytest.mark.parametrize(
    "text, sentence",
    [
        ('prompt,completion\na,"b\nc,d\n', ":2: the line is not CSV (a quote is not closed"),
        ('prompt,completion\na,"b" c\n', ":2: the line is not CSV (a quote is not closed, or text follows"),
        ("prompt,completion,completion\na,b,c\n", ":1: the first line names the column `completion` twice"),
        ("prompt;completion; prompt\na;b;c\n", ":1: the first line names the column `prompt` twice"),
        ("prompt;completion\na;b;c\n", ":2: the line has 3 cells, and the first line names 2; put cells with a semicolon in"),
        ("frage;antwort\na;b\n", ":2: the row is of no known kind (its keys: antwort, frage)"),
    ],
)
def test_what_is_no_table_of_rows_is_named_with_its_line(tmp_path, text, sentence):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    assert sentence in str(scan(path, "rows.csv").errors[0])


def test_empty_lines_and_empty_last_cells_say_nothing(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion,,\na,b,,\n\n,,,\n,,\nc,d,,\n")
    assert [row.id for row in read(path, "rows.csv")] == ["rows.csv:2", "rows.csv:6"]


def test_a_quote_within_a_cell_is_text():
    assert cells('a,b\n5" pipe,it\'s "so"\n')[1] == ['5" pipe', 'it\'s "so"']
    assert isinstance(cells('a,b\n"x"y,z\n')[1], CellError)
