"""RELIABILITY.md says of every fault what its story shows, and every fault of the twin has a story or a reason for having none."""

import re

import test_faults_of_aws
import test_faults_of_the_box
from conftest import ROOT

PAGE = (ROOT / "RELIABILITY.md").read_text()
FILES = (test_faults_of_aws, test_faults_of_the_box)


def table_rows() -> list[str]:
    return [story.row(f"{file.__name__}.py") for file in FILES for story in file.STORIES]


def test_the_table_is_what_the_stories_say():
    rows = [line for line in PAGE.splitlines() if re.search(r"`test_faults_of_\w+\.py\[", line)]
    assert rows == table_rows(), "\n" + "\n".join(table_rows())


def test_there_are_enough_of_them_and_no_two_have_one_name():
    names = [story.name for file in FILES for story in file.STORIES]
    assert len(names) == len(set(names)) >= 25


def test_every_fault_of_the_twin_is_met_or_named_as_one_that_cannot_be():
    known = set(re.findall(r"^\| `([\w-]+)` \|", (ROOT / "twin/FAULTS.md").read_text(), re.M))
    met = {story.fault for file in FILES for story in file.STORIES}
    (line,) = [line for line in PAGE.splitlines() if line.startswith("Faults without a story:")]
    assert known - met == set(re.findall(r"`([\w-]+)`", line))


def test_every_test_that_the_page_names_is_there():
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))
    assert named and not [name for name in named if not (ROOT / name).exists()]
