"""docs/ANSWERS.md: what we read of AWS's answers is documented, and what AWS leaves out at times is borne."""

import ast
import json
import re

import reads
from botocore import xform_name
from conftest import ROOT

from twin.aws.documented import documented, service_models

KNOWN = json.loads(reads.READS.read_text())
FILES = [*sorted((ROOT / "remote").rglob("*.py")), ROOT / "tasks.py"]


def test_the_page_is_what_the_notes_say():
    assert reads.PAGE.read_text() == reads.page(KNOWN)


def test_nothing_is_read_that_aws_does_not_document():
    assert reads.faults(KNOWN, "never", reads.MUST, reads.MAY) == []


def test_what_aws_leaves_out_at_times_is_never_taken_for_granted():
    assert reads.faults(KNOWN, "at times", reads.MUST) == []


def test_what_the_scripts_of_the_box_take_from_answers_is_among_it():
    scripts = reads.of_scripts()
    assert "secretsmanager.GetSecretValue" in scripts
    assert reads.merged(KNOWN, scripts) == KNOWN
    for script in reads.SCRIPTS.glob("*.sh"):
        assert not re.search(r"\baws [^|\n]*\|\s*(jq|python)", script.read_text()), script  # nothing but `--query` reads answers


def test_every_operation_that_the_code_names_is_among_it():
    """Where this fails: READS=FOLDER python -m pytest TESTS-THAT-CALL-IT, then python tests/support/reads.py FOLDER."""
    called, services = set(), set()
    for node in (node for file in FILES for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if name in ("client", "early"):
            services.add(first)
        called.add(first if name == "get_paginator" else name)
    models = [service_models.service(name) for name in services if name]
    names = {xform_name(operation): f"{model.signing_name}.{operation}" for model in models for operation in model.operation_names}
    called -= {"create_session"}  # paramiko's
    assert len(services) > 10 and {names[name] for name in called & {*names}} - {*KNOWN} == set()


def test_an_answer_notes_who_reads_what_of_it_and_how(tmp_path, monkeypatch):
    monkeypatch.setenv("READS", str(tmp_path))
    reads.write.cache_clear()
    shape = documented.operation("ec2", "DescribeVolumes").model.output_shape
    answer = reads.noting({"Volumes": [{"VolumeId": "v", "Tags": [{"Key": "a"}]}]}, shape, "ec2.DescribeVolumes")
    reader = {}
    exec(
        compile(
            "def read(answer):\n return [(one['VolumeId'], one.get('Attachments')) for one in answer['Volumes']]",
            ROOT / "remote/x.py",
            "exec",
        ),
        reader,
    )
    assert reader["read"](answer) == [("v", None)]
    assert answer["Volumes"][0]["Tags"] == [{"Key": "a"}]  # this file is none of ours to note
    place = "remote/x.py:read"
    assert reads.gathered(tmp_path) == {
        "ec2.DescribeVolumes": {
            "Volumes": {"must": [place]},
            "Volumes.Attachments": {"may": [place]},
            "Volumes.VolumeId": {"must": [place]},
        }
    }
    reads.write.cache_clear()
