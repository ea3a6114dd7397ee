"""The main job, as a user runs it: real scripts, real agent protocol, real S3 and Hub protocols, the real trainer on a tiny model."""

import base64
import csv
import gzip
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import real_trainer
from conftest import ROOT


@pytest.fixture(scope="module")
def chain(laptop):
    """The whole chain has run once: the box has built its image, and trained with one of the same trainer that starts sooner."""
    built = laptop.inv("up", "deploy")
    real_trainer.register(laptop.state)
    trained = laptop.inv("deploy", "train", "publish", "down")
    laptop.first = SimpleNamespace(stdout=built.stdout + trained.stdout, stderr=built.stderr + trained.stderr)
    return laptop


def runs(laptop) -> dict[str, set[str]]:
    files = {}
    for key in laptop.objects():
        parts = key.split("/", 3)
        if parts[1] == "runs":
            files.setdefault(parts[2], set()).add(parts[3])
    return dict(sorted(files.items()))


def only_run(laptop) -> str:
    return next(iter(runs(laptop)))


def test_each_verb_has_a_line_and_the_last_one_names_the_next_command(chain):
    named = [line.split()[0] for line in chain.first.stdout.splitlines()]
    assert named == ["up", "deploy", "next", "deploy", "train", "publish", "down", "next"]
    assert "next       `inv train -- cloud=twin " in chain.first.stdout
    assert chain.first.stdout.splitlines()[-1].startswith("next       `inv report -- cloud=twin ")


def test_a_notice_comes_once(chain):
    notices = [line for line in chain.first.stderr.splitlines() if line.startswith("  ")]
    assert sum("price    about $" in line for line in notices) == 2, "up and train, in a command each"
    assert not any(line.startswith(("  Find", "memory", "---")) for line in chain.first.stderr.splitlines())


def test_the_run_folder_in_s3_is_complete_and_sealed(chain):
    names = runs(chain)[only_run(chain)]
    wanted = {
        "config.yaml",
        "state.json",
        "log.txt",
        "events.jsonl",
        "metrics.json",
        "report.html",
        "card.md",
        "manifest.json",
        "published.json",
    }
    assert wanted <= names
    assert {"adapter/adapter_model.safetensors", "adapter/adapter_config.json"} <= names
    assert json.loads(chain.object(f"fine-tune-slm/runs/{only_run(chain)}/state.json"))["phase"] == "done"


def test_the_log_chunks_are_the_log(chain):
    prefix = f"fine-tune-slm/runs/{only_run(chain)}"
    chunks = sorted(name for name in runs(chain)[only_run(chain)] if name.startswith("log/"))
    joined, expected = b"", 0
    for name in chunks:
        assert int(name.removeprefix("log/")) == expected
        joined += chain.object(f"{prefix}/{name}")
        expected = len(joined)
    assert joined == chain.object(f"{prefix}/log.txt")
    assert chain.inv("logs").stdout.encode() == joined


def test_the_box_is_stopped_and_nothing_of_it_runs(chain):
    from twin import world

    states = [
        instance["State"]["Name"] for group in chain.client("ec2").describe_instances()["Reservations"] for instance in group["Instances"]
    ]
    assert states == ["stopped"]
    assert [box["processes"] for box in world.status(chain.state)["boxes"]] == [0]


def test_the_plain_aws_client_sees_the_run(chain):
    assert only_run(chain) in chain.aws("s3", "ls", "s3://fine-tune-slm/fine-tune-slm/runs/")
    invocations = json.loads(chain.aws("ssm", "list-command-invocations"))["CommandInvocations"]
    assert {"fine-tune-slm setup", "fine-tune-slm train"} <= {" ".join(invocation["Comment"].split()[:2]) for invocation in invocations}
    assert only_run(chain) in chain.aws("logs", "describe-log-streams", "--log-group-name", "/fine-tune-slm")
    assert "stopped" in chain.aws("ec2", "describe-instances")


def test_the_log_is_mirrored_to_cloudwatch(chain):
    events = json.loads(
        chain.aws(
            *("logs", "get-log-events", "--log-group-name", "/fine-tune-slm"),
            *("--log-stream-name", f"training/{only_run(chain)}", "--start-from-head"),
        )
    )
    mirrored = [event["message"] for event in events["events"]]
    log = chain.object(f"fine-tune-slm/runs/{only_run(chain)}/log.txt").decode()
    assert mirrored == [line for line in log.splitlines() if line.strip()]


@pytest.mark.slow
def test_plain_peft_gives_the_outputs_that_were_scored(chain, tmp_path):
    """In a process that has none of our code: download with huggingface_hub, load with peft, generate greedily."""
    run = only_run(chain)
    record = json.loads(chain.object(f"fine-tune-slm/runs/{run}/published.json"))
    lines = chain.object(f"fine-tune-slm/runs/{run}/predictions.jsonl").splitlines()
    rows = [json.loads(line) for line in lines][:2]
    program = tmp_path / "plain.py"
    program.write_text(PLAIN)
    request = json.dumps({"repository": record["repository"], "revision": record["tag"], "prompts": [row["prompt"] for row in rows]})
    done = subprocess.run(
        [sys.executable, "-I", str(program)], input=request, env=chain.environment, cwd=tmp_path, text=True, capture_output=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [row["tuned"] for row in rows]


PLAIN = """
import json, sys
import torch
from huggingface_hub import snapshot_download
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
request = json.load(sys.stdin)
folder = snapshot_download(request["repository"], revision=request["revision"])
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
answers = []
for messages in request["prompts"]:
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    out = model.generate(**ids, do_sample=False, max_new_tokens=24)
    answers.append(tokenizer.decode(out[0, ids["input_ids"].shape[1]:], skip_special_tokens=True))
print(json.dumps(answers))
"""


def decoded(text: str) -> str:
    """The text with everything in it that base64 or gzip could hide, unpacked once."""
    texts = [text]
    for word in re.findall(r"[A-Za-z0-9+/]{40,}={0,2}", text.replace("\\n", "")):
        try:
            raw = base64.b64decode(word[: len(word) // 4 * 4])
            raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        except (ValueError, EOFError, OSError, zlib.error):
            continue  # a long word that is neither
        texts.append(raw.decode(errors="replace"))
    return "\n".join(texts)


def test_no_secret_is_anywhere(chain):
    from twin import world

    token = world.environment(chain.state)["HF_TOKEN"]
    places = {"journal": (chain.state / "journal.jsonl").read_text(), "server log": (chain.state / "twin.log").read_text(errors="replace")}
    places["command history"] = chain.aws("ssm", "list-commands")
    for key in chain.objects():
        places[key] = chain.object(key).decode(errors="replace")
    for path in (chain.state / "boxes").rglob("*"):
        if path.is_file() and path.name not in ("hub-token", "hub-tokens"):
            places[str(path)] = path.read_bytes().decode(errors="replace")
    places["laptop"] = chain.first.stdout + chain.first.stderr
    leaks = [name for name, text in places.items() if token in decoded(text)]
    assert leaks == []
    assert any("#!/bin/bash" in decoded(text) and "RUN_ID=" in decoded(text) for text in [places["journal"]]), (
        "the scripts were not unpacked"
    )


@pytest.mark.slow
def test_twice_in_a_row_changes_nothing_that_was_done(chain):
    before = {
        name: chain.object(f"fine-tune-slm/runs/{only_run(chain)}/{name}")
        for name in ("manifest.json", "adapter/adapter_model.safetensors")
    }
    first = only_run(chain)
    second = chain.inv("up", "up", "deploy", "train", "publish", "down")
    assert "(changed: no)" in second.stdout
    assert len(runs(chain)) == 2
    for name, body in before.items():
        assert chain.object(f"fine-tune-slm/runs/{first}/{name}") == body


def test_a_second_deploy_sends_two_commands_and_uploads_nothing(chain):
    chain.inv("up", "deploy")
    before = len(chain.journal())
    done = chain.inv("deploy")
    calls = [(entry["service"], entry["operation"]) for entry in chain.journal()[before:]]
    assert calls.count(("ssm", "SendCommand")) == 2
    uploads = [entry for entry in chain.journal()[before:] if entry["service"] == "s3" and entry["operation"].startswith("Put")]
    assert all("/audit/" in entry["target"] or "/locks/" in entry["target"] for entry in uploads)
    assert "(changed: no)" in done.stdout


def test_publishing_again_makes_no_second_commit(chain):
    first = json.loads(chain.object(f"fine-tune-slm/runs/{list(runs(chain))[-1]}/published.json"))
    chain.inv("publish")
    again = json.loads(chain.object(f"fine-tune-slm/runs/{list(runs(chain))[-1]}/published.json"))
    assert again["revision"] == first["revision"]
    assert again["repository"].endswith("-smoke")


def test_a_pipe_gets_no_progress_bars(chain):
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", chain.first.stdout + chain.first.stderr)
    assert "%|" not in chain.first.stderr


def test_the_report_tells_scores_page_price_and_what_is_next(chain):
    out = chain.inv("report").stdout
    for words in ("base", "tuned", "published  http://127.0.0.1", "report.html", "time ", "price ", "cloud=aws"):
        assert words in out
    page = Path(re.search(r"report +(.*report\.html)", out).group(1))
    assert page.exists()


@pytest.mark.slow
def test_predict_answers_on_this_machine_where_the_box_is_off_and_on_the_box_where_it_is_up(chain):
    notes = chain.folder / "notes.jsonl"
    notes.write_text('{"input": "A 60-year-old with stage II melanoma."}\n{"input": "Stage IV lung cancer, EGFR L858R."}\n')
    chain.inv("down")
    here = chain.inv("predict", str(notes))
    assert "on this machine's CPU: the box is stopped" in here.stderr and len(here.stdout.splitlines()) >= 2
    chain.inv("up", "deploy")
    there = chain.inv("--echo", "predict", str(notes))
    assert "on the box (i-" in there.stderr and "predict.sh" in there.stderr
    assert there.stdout == here.stdout
    assert not [key for key in chain.objects() if "/questions/" in key], "texts or answers are left in S3"
    (chain.folder / "broken.jsonl").write_text('{"input": "Stage II."}\n{"messages": 3}\n')
    broken = chain.inv("predict", str(chain.folder / "broken.jsonl"), ok=False)
    assert "line 2: `messages` is a number (3)" in broken.stderr and "hint: make it a list of objects" in broken.stderr
    assert "Traceback" not in broken.stderr
    chain.inv("down")


@pytest.mark.system
@pytest.mark.usefixtures("sshd")
def test_play_answers_on_the_box_through_a_port_of_this_machine_until_ctrl_c(chain):
    chain.inv("up", "deploy")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    playing = chain.popen("play", "--port", str(port))
    said = iter(playing.stdout.readline, "")
    lines = list(itertools.takewhile(lambda line: "is a page to try them on" not in line, said))
    assert any("answers on the box (i-" in line for line in lines), "".join(lines)
    place = f"http://127.0.0.1:{port}"
    text = "A 60-year-old with stage II melanoma."
    body = json.dumps({"model": "tuned", "messages": [{"role": "user", "content": text}]}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{place}/v1/chat/completions", body), timeout=600) as answer:
        through_the_port = json.load(answer)["choices"][0]["message"]["content"]
    with urllib.request.urlopen(f"{place}/", timeout=60) as page:
        assert b'id="note"' in page.read()
    playing.send_signal(signal.SIGINT)
    assert playing.wait(120) == 130 and "is no longer served" in "".join(said)
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{place}/v1/models", timeout=5)
    assert chain.inv("predict", text).stdout == f"{through_the_port}\n", "as the box itself answers"
    again = chain.popen("play", "--port", str(port))  # the model is still there
    assert any("is a page to try them on" in line for line in iter(again.stdout.readline, ""))
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=120)
    chain.inv("down")


@pytest.mark.slow
def test_a_run_is_a_spreadsheet_and_two_runs_are_compared(chain):
    table = list(csv.DictReader(chain.inv("report", "--csv").stdout.splitlines()))
    assert {"macro_f1", "row_exact", "completion_loss", "stage"} <= {row["name"] for row in table}
    first, second = list(runs(chain))[-2:]
    out = chain.inv("compare", first, second).stdout
    assert f"A: {first}" in out and f"B: {second}" in out
    assert "the settings are the same" in out and "scored on the same rows" in out


@pytest.mark.slow
def test_a_finished_run_is_scored_on_other_rows_here_or_on_the_box_and_its_own_files_stay(chain):
    run = list(runs(chain))[-1]
    before = {name: chain.object(f"fine-tune-slm/runs/{run}/{name}") for name in ("manifest.json", "metrics.json", "predictions.jsonl")}

    def stored() -> dict:
        return json.loads(chain.object(f"fine-tune-slm/runs/{run}/evaluations/smoke_validation.json"))

    chain.inv("down")
    here = chain.inv("evaluate", "--split", "smoke_validation")
    assert "on this machine's CPU: the box is stopped" in here.stderr
    assert "macro-F1 over fields" in here.stdout and "(16 rows)" in here.stdout
    first = stored()
    assert (first["run_id"], first["split"], first["rows"], first["trained_on"]) == (run, "smoke_validation", 16, False)
    assert len(chain.object(f"fine-tune-slm/runs/{run}/evaluations/smoke_validation.predictions.jsonl").splitlines()) == 16

    chain.inv("up", "deploy")
    there = chain.inv("--echo", "evaluate", "--split", "smoke_validation", "--scaffold")
    assert "on the box (i-" in there.stderr and "evaluate.sh" in there.stderr
    second = stored()
    assert second["time"] > first["time"] and second["scaffold"]["tuned"], "the box did not score it anew, with the keys filled in"
    same = ("base", "tuned", "rows_sha256", "completion_loss", "adapter_sha256")
    assert {name: second[name] for name in same} == {name: first[name] for name in same}
    assert "keys filled in" in there.stdout and there.stdout.splitlines()[1] == here.stdout.splitlines()[1]
    (chain.folder / "no rows.jsonl").write_text("hello\n")
    broken = chain.inv("evaluate", "--split", str(chain.folder / "no rows.jsonl"), ok=False)
    assert "no rows.jsonl:1: the line is not JSON" in broken.stderr and "Traceback" not in broken.stderr
    chain.inv("down")
    assert before == {name: chain.object(f"fine-tune-slm/runs/{run}/{name}") for name in before}


def test_a_rehearsal_prints_the_chain_and_touches_nothing(chain):
    def asked():
        """All requests but those of the box itself, its agent and its supervisor: the one of the test before may still be up."""
        return len(
            [entry for entry in chain.journal() if entry["service"] not in ("ec2messages", "imds") and not entry["by"].startswith("i-")]
        )

    before = asked()
    for verbs in (["--dry", "up", "deploy", "train", "publish", "down"], ["up", "deploy", "train", "publish", "down", "--dry"]):
        out = chain.inv(*verbs).stdout
        for words in ("# up", "setup.sh", "volume.sh", "deploy.sh", "train.sh", "# publish", "stop.sh", "MOUNT_PATH=/mnt/training"):
            assert words in out
    assert asked() == before


def test_the_tree_is_as_it_was(chain):
    done = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no git repository here")
    assert "runs/" not in done.stdout
