"""`inv serve`: which run, on which port, held to which schema; refused before anything is fetched."""

import json
import socket
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from conf import load, problem
from conf.problem import Problem
from remote import local_port
from remote.runs import download, runs, serving, trainer_here
from remote.transport import model_port

RUN = "20260101-000000-quickstart-0000"


def hold(source: str, fields: list[str] | None, predictions: bytes) -> str:
    return json.dumps([source, fields, predictions.decode()])


def test_what_is_interrupted_leaves_no_program_behind(monkeypatch, tmp_path):
    def interrupted(_line):
        raise KeyboardInterrupt

    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    monkeypatch.setattr(trainer_here.screen, "relay", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer_here.run("serve", ["http.server", "0", "--bind", "127.0.0.1"], tmp_path)
    assert not [child for child in psutil.Process().children() if "http.server" in child.cmdline()]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_a_port_that_is_taken_is_refused_with_another_one(free_port):
    local_port.check(free_port, "inv serve --port")
    with (
        socket.create_server(("127.0.0.1", free_port)),
        pytest.raises(Problem, match=f"port {free_port} of 127.0.0.1 cannot be used") as caught,
    ):
        local_port.check(free_port, "inv serve --port")
    assert "Address already in use" in caught.value.what and f"`inv serve --port {free_port + 1}`" in caught.value.hint
    with pytest.raises(Problem, match="there is no port 70000"):
        local_port.check(70_000, "inv serve --port")


def test_what_is_no_finished_run_of_one_s_own_is_not_served(aws, store, settings, free_port):
    run = settings()
    with pytest.raises(Problem, match="there is no finished full run of yours called `quickstart`"):
        serving.choose(aws, run, None, free_port, None, hold)
    with pytest.raises(Problem, match=f"there is no run `{RUN}`"):
        serving.choose(aws, run, RUN, free_port, None, hold)
    store.put(f"runs/{RUN}/config.yaml", b"name: quickstart\nkind: full\nprovenance: {owner: somebody-else}\n")
    store.put(f"runs/{RUN}/manifest.json", b'{"kind": "full", "name": "quickstart", "files": {}, "seconds": {}}')
    with pytest.raises(Problem, match="there is no finished full run of yours called `quickstart`"):
        serving.choose(aws, run, None, free_port, None, hold)


def test_the_schema_is_that_of_the_run_s_own_fields(aws, store, settings, free_port, monkeypatch):
    run = settings()
    run.run_id = RUN
    store.put(f"runs/{RUN}/config.yaml", load.dump(run).encode())
    store.put(f"runs/{RUN}/predictions.jsonl", b"{}\n")
    store.put(f"runs/{RUN}/manifest.json", b'{"kind": "full", "name": "quickstart", "files": {}, "seconds": {}}')
    monkeypatch.setattr(runs, "find_sealed", lambda *_: RUN)
    assert serving.choose(aws, run, None, free_port, None, hold).lines == []
    (line,) = serving.choose(aws, run, None, free_port, "auto", hold).lines
    assert json.loads(line) == ["auto", run.data.fields, "{}\n"]


@pytest.mark.parametrize(("schema", "on_box"), [(None, True), ("auto", False)])
def test_the_box_answers_where_it_is_up_and_free_and_no_schema_is_asked_for(
    aws, store, settings, free_port, monkeypatch, capsys, schema, on_box
):
    run = settings()
    run.run_id = RUN
    store.put(f"runs/{RUN}/config.yaml", load.dump(run).encode())
    store.put(f"runs/{RUN}/manifest.json", b'{"kind": "full", "name": "quickstart", "files": {}, "seconds": {}}')
    monkeypatch.setattr(runs, "find_sealed", lambda *_: RUN)
    monkeypatch.setattr(serving.predictions, "choose_machine", lambda *_: (SimpleNamespace(id="i-1"), "on the box (i-1, g6.2xlarge)"))
    chosen = serving.choose(aws, run, None, free_port, schema, hold, "play")
    assert (chosen.on_box, chosen.here, chosen.instance_id) == (on_box, not on_box, "i-1" if on_box else None)
    said = capsys.readouterr().err
    assert f"{RUN} answers " + ("on the box (i-1, g6.2xlarge)" if on_box else "on this machine's CPU: here alone") in said
    with socket.create_server(("127.0.0.1", free_port)), pytest.raises(Problem, match="cannot be used") as caught:
        serving.choose(aws, run, None, free_port, None, hold, "play")
    assert "`inv play --port " in caught.value.hint


@pytest.mark.parametrize("address", ["", "169.254.169.254", "8.8.8.8", "::1", "localhost"])
def test_a_place_that_is_no_container_s_is_not_forwarded(address):
    with pytest.raises(Problem, match="which is no container's"):
        model_port.check_address(address)
    model_port.check_address("172.18.0.2")


def test_the_trainer_serves_what_was_fetched_until_ctrl_c(aws, settings, monkeypatch, tmp_path):
    def ended(what, words, root, given, instead):
        assert instead == "then `inv play --run r --port 8000`", "the verb that was typed"
        assert (what, words, given) == ("serve r", ["trainer.evaluate.serve", str(tmp_path / "r"), "8000"], b"line")
        raise KeyboardInterrupt

    monkeypatch.setattr(serving.download, "download", lambda *_: serving.download.Downloaded("r", tmp_path / "r"))
    monkeypatch.setattr(trainer_here, "run", ended)
    with pytest.raises(KeyboardInterrupt, match="r is no longer served"):
        serving.serve(aws, settings(), "r", 8000, ["line"], tmp_path, "play")


def test_a_disk_that_is_full_is_a_sentence_before_the_model_is_loaded(aws, store, settings, free_port, monkeypatch, tmp_path):
    run, inside = settings(), download.paths.inside
    store.put(f"runs/{RUN}/config.yaml", b"name: quickstart\nkind: full\n")
    store.put(f"runs/{RUN}/manifest.json", b'{"kind": "full", "name": "quickstart", "files": {}, "seconds": {}}')
    full = {"manifest.json": Path("/dev/full")}  # takes no byte
    monkeypatch.setattr(download.paths, "inside", lambda folder, name: full.get(name) or inside(folder, name))
    monkeypatch.setattr(trainer_here, "run", None)
    with pytest.raises(OSError, match="No space left") as caught:
        serving.serve(aws, run, RUN, free_port, [], tmp_path)
    meaning = problem.explain(caught.value)
    assert meaning.reason == "disk_full" and "a disk of this machine is full" in meaning.what and "df -h" in meaning.hint
