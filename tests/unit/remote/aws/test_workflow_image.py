"""image.yml: an image gets the tag that boxes take only when all that its workflow says of it is true."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

STEPS = yaml.safe_load((ROOT / ".github/workflows/image.yml").read_text(encoding="utf-8"))["jobs"]["image"]["steps"]
AWS = """#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in *batch-get-image*) printf '{"a": "b  c"}\\n' ;; esac
"""


def place(words: str) -> int:
    (number,) = [number for number, step in enumerate(STEPS) if words in step.get("name", "")]
    return number


def test_nothing_that_boxes_take_is_in_ecr_before_it_is_attested():
    """An attestation that failed left the image under its tag, and the next run found it there and attested nothing."""
    attests = [number for number, step in enumerate(STEPS) if step.get("uses", "").startswith("actions/attest@")]
    push, name = place("Push it under a name"), place("Give it the name")
    assert len(attests) == 2 and push < attests[0] and attests[-1] < name == len(STEPS) - 1
    for step in STEPS[:name]:
        assert "put-image" not in step.get("run", "") and 'docker push --quiet "$IMAGE"' not in step.get("run", "")
    assert "continue-on-error" not in json.dumps(STEPS)


@pytest.mark.parametrize("existing", ["", "sha256:1"])
def test_the_name_is_given_to_the_very_image_that_was_attested(tmp_path, existing):
    calls = tmp_path / "calls"
    (tmp_path / "aws").write_text(AWS)
    (tmp_path / "aws").chmod(0o755)
    environment = {"CALLS": str(calls), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {"REPOSITORY": "r", "STACK": "s", "TAG": "t", "IMAGE": "h/r:t", "DIGEST": "sha256:1", "FOUND": existing}
    done = subprocess.run(["bash", "-e", "-c", STEPS[-1]["run"]], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    put = 'ecr put-image --repository-name r --image-tag t --image-digest sha256:1 --image-manifest {"a": "b  c"}'
    assert (put in calls.read_text().splitlines()) is (not existing)
    assert "--name /s/ecr/image-digest --type String --overwrite --value sha256:1" in calls.read_text()


def test_what_the_workflow_asks_of_this_tree_is_there():
    """Files were moved, and the first run on GitHub would have ended at an import."""
    text = "\n".join(step.get("run", "") for step in STEPS)
    asked = [words for words in re.findall(r"python -c '([^']*)'", text) if "remote" in words]
    assert len(asked) == 2
    for words in asked:
        done = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True)
        assert done.returncode == 0 and done.stdout, done.stderr
