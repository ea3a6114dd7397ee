"""The real trainer as the image of tests that want more than one run of it: the same program, which starts in a third of the time."""

from pathlib import Path

import loaded

ROOT = Path(__file__).resolve().parents[2]


def register(state: Path, repository: str = "fine-tune-slm") -> None:
    """It is in a world's ECR under the tag that this tree's own image would have."""
    from remote.build import ecr
    from twin import world

    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    world.register_image(state, repository, ecr.tag(ROOT), [*loaded.trainer()], ROOT, environment)
