"""Every command of README.md and of the guides runs, page by page, on a world of its own. docs/AWS.md has a test of its own."""

import json
import shlex

import pytest
import stand_in_trainer
from conftest import ROOT, Laptop

from tests.repository.test_docs import TYPED
from twin import world

pytestmark = pytest.mark.slow

PAGES = sorted(
    {page for page, _ in TYPED} & {"README.md", *(f"docs/{name}.md" for name in ("SETTINGS", "DATA", "SWEEPS", "VERBS", "TWIN"))}
)
ELSEWHERE = {  # by the beginning of the line: the test that runs it
    "make run": "tests/integration/test_chain.py",
    "make test": "tests/integration/test_chain.py",
    "inv play": "tests/unit/trainer/evaluate/test_serve.py",  # the same verb, which answers until it is ended
    "inv serve": "tests/unit/trainer/evaluate/test_serve.py",
    "inv shell": "tests/unit/remote/transport/test_shell.py",
    "inv forward": "tests/unit/remote/transport/test_shell.py",
    "inv tensorboard": "tests/unit/remote/view/test_tensorboard.py",
    "python -m trainer model=tiny": "tests/unit/trainer/train/test_launch.py",
    "python -m trainer -m": "tests/unit/trainer/sweep/test_sweep.py",
    "inv twin.start up deploy train publish down -- cloud.backend=machine": "tests/system/test_chains.py",
}
ROWS = {"my.jsonl": 40, "held_out.jsonl": 8}
NEEDS_A_BOX = {"deploy", "train", "sweep", "curve", "stop-run"}


class Reader:
    """Types what a page says, one line after the other, and does what the page takes for done: the box is up, a run is finished."""

    def __init__(self, laptop: Laptop, page: str):
        self.laptop, self.running = laptop, False
        for name, count in ROWS.items():
            cities = [
                {
                    "instruction": "List the facts.",
                    "input": f"{name} {n}: it is {n} o'clock in Oslo.",
                    "output": {"city": "Oslo", "people": [f"Kari {n}"]},
                }
                for n in range(count)
            ]
            (laptop.folder / name).write_text("".join(json.dumps(row) + "\n" for row in cities))
        (laptop.folder / "token").write_text("hf_local")
        if page == "README.md":
            self.start("--empty")
        elif page != "docs/TWIN.md":
            self.start()
            laptop.inv("up", "deploy", "train")
            self.running = True
            laptop.inv("train", overrides=("lora.r=4",))  # another finished run

    def start(self, *options: str) -> None:
        self.laptop.inv("twin.start", *options)
        (self.laptop.folder / "token").write_text(world.environment(self.laptop.state)["HF_TOKEN"])
        if not options:
            stand_in_trainer.register(self.laptop.state)

    def type(self, line: str) -> str:
        words = shlex.split(line, comments=True)[1:]
        verbs, overrides = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
        overrides = [self.placed(word) for word in overrides if word.split("=")[0] not in ("cloud", "experiment")]
        verbs = [str(self.laptop.folder / "token") if word == "~/.hub-token" else word for word in verbs]
        if verbs == ["compare", "RUN", "RUN"]:
            verbs = ["compare", *self.finished()[:2]]
        if {"init", "clean"} & {*verbs} and "--yes" not in verbs and "--dry" not in verbs:
            verbs.append("--yes")  # nobody is there to be asked
        if "twin.start" in verbs:
            world.stop(self.laptop.state)
            self.running = False
        elif world.status(self.laptop.state) is None:  # the page has stopped it, and goes on with another thing
            self.start()
        elif NEEDS_A_BOX & {*verbs} and "up" not in verbs and not self.running:
            self.laptop.inv("up", "deploy")
            self.running = True
        if verbs == ["stop-run"]:
            stand_in_trainer.register(self.laptop.state, step_seconds=30)
            self.laptop.inv("deploy")
            self.laptop.inv("train", "--detach", overrides=("seed=7",))
        if "up" in verbs:
            self.running = True
        if "down" in verbs:
            self.running = False
        output = self.laptop.inv(*verbs, overrides=tuple(overrides)).stdout
        if "twin.start" in verbs or "init" in verbs:
            stand_in_trainer.register(self.laptop.state)
        return output

    def placed(self, word: str) -> str:
        key, _, value = word.partition("=")
        return f"{key}={self.laptop.folder / value}" if value in ROWS else word

    def finished(self) -> list[str]:
        return sorted({name.split("/")[2] for name in self.laptop.objects() if name.endswith("/manifest.json")})


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_in_its_order(page, tmp_path):
    reader = Reader(Laptop(tmp_path), page)
    try:
        for line in (line for place, line in TYPED if place == page):
            if not line.startswith(tuple(ELSEWHERE)):
                reader.type(line)
    finally:
        world.stop(reader.laptop.state)


def test_what_runs_elsewhere_is_on_a_page_and_has_a_test():
    lines = [line for _, line in TYPED]
    assert all(any(line.startswith(begin) for line in lines) for begin in ELSEWHERE)
    assert all((ROOT / test).is_file() for test in ELSEWHERE.values())
