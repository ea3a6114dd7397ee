"""A run reaches the Hub whole, once, no more public than asked, and is read back before anyone is told."""

import hashlib
import json
import re
import shutil
import threading
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, ModelCard
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from conf.problem import Problem
from tests.unit.trainer.finished_run import FACTS, METRICS, RUN_ID, finished, score, sealed, settings, unsealed
from trainer.hub.publish import publish
from trainer.hub_errors import explained
from trainer.record import record
from twin.hub.app import Hub

TOKEN, READ_TOKEN = "hf_write", "hf_read"
NAME = "me/quickstart"


class Served:
    """A Hub of its own, with the two tokens above. `failures` are parts of paths, with how often each answers 503 first."""

    def __init__(self, root):
        self.hub = Hub(root, TOKEN, {}, owner="me", read_token=READ_TOKEN)
        self.failures = {}
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.client = HfApi(endpoint=self.endpoint, token=TOKEN)

    def answer(self, environ, start_response):
        for part, remaining in self.failures.items():
            if part in environ["PATH_INFO"] and remaining:
                self.failures[part] -= 1
                return Response("try later", 503)(environ, start_response)
        return self.hub(environ, start_response)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    served = Served(tmp_path / "hub")
    thread = threading.Thread(target=served.server.serve_forever)
    thread.start()
    yield served
    served.server.shutdown()
    thread.join()
    served.server.server_close()


@pytest.fixture
def run(tmp_path):
    return finished(tmp_path / RUN_ID)


def put(run, hub, repository="quickstart", private=True, token=TOKEN):
    lines = []
    return publish(run, repository, private, hub.endpoint, token, lines.append) | {"said": " ".join(lines)}


def commits(hub, repository=NAME):
    return [commit.title for commit in hub.client.list_repo_commits(repository) if commit.title.startswith("Run ")]


def test_a_run_is_published_privately_under_the_caller_s_name_and_tagged(run, hub):
    result = put(run, hub)
    assert (result["repository"], result["private"], result["tag"], result["verified"]) == (NAME, True, RUN_ID, True)
    assert result["url"] == f"{hub.endpoint}/{NAME}"
    info = hub.client.model_info(NAME, revision=RUN_ID)
    assert info.private and info.sha == result["revision"]
    assert commits(hub) == [f"Run {RUN_ID}"]


def test_only_the_allowed_files_leave_the_house(run, hub):
    result = put(run, hub)
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "metrics.json"]
    names += ["tokenizer.json", "tokenizer_config.json"]
    assert sorted(result["files"]) == names
    assert sorted(set(hub.client.list_repo_files(NAME)) - {".gitattributes"}) == names
    assert result["files"]["adapter_model.safetensors"] == hashlib.sha256(b"weights" * 1000).hexdigest()


def test_the_card_names_the_true_repository(run, hub):
    put(run, hub, "me/another")
    card = ModelCard.load(hub.client.hf_hub_download("me/another", "README.md", cache_dir=run.parent / "cache"))
    assert card.data.model_name == "another" and 'repository, revision = "me/another"' in card.text


def test_publishing_again_changes_nothing(run, hub):
    first, second = put(run, hub), put(run, hub)
    assert (first["revision"], first["files"]) == (second["revision"], second["files"])
    assert "already" in second["said"] and len(commits(hub)) == 1


def test_an_upload_that_broke_off_before_its_tag_is_finished_by_repeating_it(run, hub, monkeypatch):
    def broken(*_, **__):
        raise ConnectionResetError

    with monkeypatch.context() as patch, pytest.raises(Problem, match="did not answer") as problem:
        patch.setattr(HfApi, "create_tag", broken)
        put(run, hub)
    assert problem.value.reason == "unreachable"
    assert not hub.client.list_repo_refs(NAME).tags
    assert put(run, hub)["verified"]
    assert len(commits(hub)) == 1 and [tag.name for tag in hub.client.list_repo_refs(NAME).tags] == [RUN_ID]


def test_a_second_run_replaces_the_first_and_both_tags_stay_true(tmp_path, run, hub):
    put(run, hub)
    other = settings()
    other.run_id = "20261123T000000Z-quickstart-cd34"
    record = unsealed(tmp_path / other.run_id, other)
    (record.folder / "adapter" / "chat_template.jinja").unlink()
    record.seal(other, FACTS)
    result = put(record.folder, hub)
    assert "chat_template.jinja" not in hub.client.list_repo_files(NAME)
    assert put(run, hub)["verified"] and put(record.folder, hub)["revision"] == result["revision"]


def test_a_file_changed_on_the_hub_is_found(run, hub):
    put(run, hub)
    hub.client.delete_tag(NAME, tag=RUN_ID)
    hub.client.upload_file(path_or_fileobj=b"others" * 1000, path_in_repo="adapter_model.safetensors", repo_id=NAME)
    hub.client.create_tag(NAME, tag=RUN_ID)
    with pytest.raises(Problem, match=r"adapter_model\.safetensors in me/quickstart .* is not the file of this run") as problem:
        put(run, hub)
    assert problem.value.reason == "damaged_run"


def test_what_comes_back_garbled_gets_no_tag(run, hub, monkeypatch):
    honest = HfApi.snapshot_download

    def garbled(*positional, **named):
        place = honest(*positional, **named)
        weights = Path(place) / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes().replace(b"weights", b"Weights"))
        return place

    monkeypatch.setattr(HfApi, "snapshot_download", garbled)
    with pytest.raises(Problem, match=r"adapter_model\.safetensors in me/quickstart"):
        put(run, hub)
    assert not hub.client.list_repo_refs(NAME).tags


def test_a_damaged_run_is_refused_before_the_hub_is_asked(run, hub):
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"Weights" * 1000)
    with pytest.raises(Problem, match="damaged"):
        put(run, hub)
    assert not hub.client.repo_exists(NAME)


def test_an_unsealed_run_is_refused(run, hub):
    (run / "manifest.json").unlink()
    with pytest.raises(Problem, match="not sealed"):
        put(run, hub)


@pytest.mark.parametrize("private", [True, False])
def test_a_smoke_run_goes_to_its_own_private_repository(tmp_path, hub, private):
    run = sealed(tmp_path / "run", settings("experiment=smoke"))
    result = put(run, hub, NAME, private)
    assert (result["repository"], result["private"]) == (f"{NAME}-smoke", True)
    assert ("whatever is asked" in result["said"]) is not private


def test_a_public_repository_never_gets_what_should_be_private(run, hub):
    hub.client.create_repo(NAME, private=False)
    with pytest.raises(Problem, match="is public") as problem:
        put(run, hub)
    assert "hf repos settings me/quickstart --private" in problem.value.hint
    assert "adapter_model.safetensors" not in hub.client.list_repo_files(NAME)


def test_a_private_repository_stays_private_and_a_line_says_how_to_open_it(run, hub):
    hub.client.create_repo(NAME, private=True)
    result = put(run, hub, private=False)
    assert result["private"] and hub.client.repo_info(NAME).private
    assert "hf repos settings me/quickstart --public" in result["said"]


def test_a_run_is_public_when_that_is_asked(run, hub):
    assert put(run, hub, private=False)["private"] is False
    assert hub.client.repo_info(NAME).private is False


def test_a_bad_token_is_one_sentence(run, hub):
    with pytest.raises(Problem, match=r"does not accept the token \(401\)") as problem:
        put(run, hub, token="hf_wrong")
    assert "settings/tokens" in problem.value.hint and "hf_wrong" not in str(problem.value)


def test_no_token_is_one_sentence(run, hub):
    with pytest.raises(Problem, match="no token"):
        put(run, hub, token="")


def test_a_token_that_may_only_read_gets_the_scope_that_it_lacks(run, hub):
    with pytest.raises(Problem, match=r"may not write to me/quickstart \(403\)") as problem:
        put(run, hub, token=READ_TOKEN)
    assert "repo.write" in problem.value.hint


def test_a_hub_that_stumbles_is_asked_again(run, hub):
    hub.failures = {"/api/lfs/": 1, "/preupload/": 1}
    assert put(run, hub)["verified"]
    assert set(hub.failures.values()) == {0}


def test_a_hub_that_is_ill_is_one_sentence_and_repeating_goes_on(run, hub):
    hub.failures = {"/refs": 1}
    with pytest.raises(Problem, match="answered 503") as problem:
        put(run, hub)
    assert problem.value.reason == "unreachable"
    assert put(run, hub)["verified"] and len(commits(hub)) == 1


def test_a_hub_that_is_down_is_one_sentence(run):
    with pytest.raises(Problem, match="did not answer") as problem:
        publish(run, NAME, True, "http://127.0.0.1:9", TOKEN, print)
    assert problem.value.reason == "unreachable"


def test_a_repository_s_name_must_be_one(run, hub):
    with pytest.raises(Problem, match="cannot be the name of a repository"):
        put(run, hub, "me/two words")


def test_an_adapter_of_another_base_model_is_refused(tmp_path, hub):
    run = tmp_path / "run"
    sealed(run, settings(), model={"id": "owner/other", "revision": "c" * 40})
    with pytest.raises(Problem, match="names the base model HuggingFaceTB"):
        put(run, hub)


def test_an_adapter_of_a_local_folder_is_refused(tmp_path, hub):
    folder = str(tmp_path / "base")
    run = sealed(tmp_path / "run", settings(), model={"id": folder, "revision": None})
    with pytest.raises(Problem, match="which is not on the Hub"):
        put(run, hub)


def test_metrics_and_readme_agree_after_publishing(run, hub):
    put(run, hub)
    fetched = hub.client.snapshot_download(NAME, revision=RUN_ID, cache_dir=run.parent / "cache")
    card = ModelCard.load(f"{fetched}/README.md")
    with open(f"{fetched}/metrics.json") as file:
        metrics = json.load(file)
    assert metrics["tuned"]["macro_f1"] in [result.metric_value for result in card.data.eval_results]


def merged_run(folder, gguf=None):
    """A sealed run that made a merged model in two files of weights; `gguf` is what it tells of a GGUF file."""
    run = settings("publish.merged=true")
    written = unsealed(folder, run)
    (folder / "merged").mkdir()
    for name in ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors.index.json", "training_args.bin"):
        (folder / "merged" / name).write_text("{}")
    for number in (1, 2):
        (folder / "merged" / f"model-0000{number}-of-00002.safetensors").write_bytes(b"weights" * number)
    for name in ("model-q8_0.gguf", "Modelfile") if gguf and gguf["file"] else ():
        (folder / "merged" / name).write_bytes(b"GGUF")
    better = score(0.8, 0.5)
    written.metrics(
        METRICS | {"merged": {"chosen": "w16", "forms": {"nf4": METRICS["tuned"], "w16": better}}} | ({"gguf": gguf} if gguf else {})
    )
    written.seal(run, FACTS)
    return folder


def test_a_merged_model_has_a_repository_and_a_true_card_of_its_own(tmp_path, hub):
    run = merged_run(tmp_path / RUN_ID)
    result = publish(run, "quickstart", True, hub.endpoint, TOKEN, print, merged=True)
    assert (result["repository"], result["merged"]["repository"]) == (NAME, f"{NAME}-merged")
    weights = {f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    names = {
        "README.md",
        "metrics.json",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
    } | weights
    assert set(result["merged"]["files"]) == names
    assert result["merged"]["private"] and hub.client.model_info(f"{NAME}-merged", revision=RUN_ID).sha == result["merged"]["revision"]
    card = ModelCard.load(hub.client.hf_hub_download(f"{NAME}-merged", "README.md", cache_dir=tmp_path / "cache"))
    assert (card.data.base_model_relation, card.data.library_name) == ("finetune", "transformers")
    assert {figure.metric_name: figure.metric_value for figure in card.data.eval_results}["macro-F1 over fields"] == 0.8
    assert f"[{NAME}](https://huggingface.co/{NAME})" in card.text and "peft" not in card.data.tags
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    compile(code, "card", "exec")


MADE = {"format": "q8_0", "file": "model-q8_0.gguf", "why": None, "modelfile": None, "scores": score(0.7, 0.4)}
FAILED = MADE | {"file": None, "why": "its tensor x is not the merged model's", "scores": None}


@pytest.mark.parametrize(
    ("gguf", "files", "told"),
    [
        (MADE, {"model-q8_0.gguf", "Modelfile"}, ["ollama create quickstart -f model/Modelfile", "GGUF file, q8_0 (published) | 0.7"]),
        (MADE | {"modelfile": "its rows have tools"}, {"model-q8_0.gguf"}, ["There is no Modelfile for Ollama: its rows have tools."]),
        (FAILED, set(), ["There is no GGUF file: its tensor x is not the merged model's."]),
        (None, set(), ["There is no GGUF file: the run was made without `publish.gguf`."]),
    ],
    ids=["made", "no Modelfile", "failed", "not asked for"],
)
def test_a_gguf_file_is_published_beside_the_merged_model_and_the_card_tells_how_to_run_it(gguf, files, told, tmp_path, hub):
    run = merged_run(tmp_path / RUN_ID, gguf)
    if gguf and gguf["modelfile"]:
        (run / "merged/Modelfile").unlink()
        (run / "manifest.json").unlink()
        record.Record(run).seal(settings("publish.merged=true"), FACTS)
    result = publish(run, "quickstart", True, hub.endpoint, TOKEN, print, merged=True)
    assert {name for name in result["merged"]["files"] if name in ("model-q8_0.gguf", "model-f16.gguf", "Modelfile")} == files
    card = ModelCard.load(hub.client.hf_hub_download(f"{NAME}-merged", "README.md", cache_dir=tmp_path / "cache")).text
    assert all(each in card for each in told) and ("llama-server" in card) == bool(files)
    assert f"vllm serve {NAME}-merged --revision {RUN_ID}" in card and f"transformers serve {NAME}-merged@{RUN_ID}" in card


def test_the_adapter_alone_is_published_without_the_merged_model_at_hand(tmp_path, hub):
    run = merged_run(tmp_path / RUN_ID)
    shutil.rmtree(run / "merged")  # as the laptop has it: gigabytes that nobody asked for
    assert "merged" not in put(run, hub)
    assert not hub.client.repo_exists(f"{NAME}-merged")


def test_a_run_without_a_merged_model_says_so_before_anything_is_uploaded(run, hub):
    with pytest.raises(Problem, match="has no merged model") as caught:
        publish(run, "quickstart", True, hub.endpoint, TOKEN, print, merged=True)
    assert "publish.merged=true" in caught.value.hint and not hub.client.repo_exists(NAME)


@pytest.mark.parametrize(
    ("gguf", "told"), [(None, "trained without one"), (MADE | {"format": "f16"}, "trained without one"), (FAILED, None)]
)
def test_a_gguf_file_that_was_asked_for_and_is_not_there_is_no_secret(gguf, told, tmp_path, hub):
    run, lines = merged_run(tmp_path / RUN_ID, gguf and gguf | {"file": None}), []
    if told:
        with pytest.raises(Problem, match=told) as caught:
            publish(run, "quickstart", True, hub.endpoint, TOKEN, print, merged=True, gguf="q8_0")
        assert "publish.gguf=q8_0" in caught.value.hint and not hub.client.repo_exists(NAME)
    else:
        publish(run, "quickstart", True, hub.endpoint, TOKEN, lines.append, merged=True, gguf="q8_0")
        assert "no GGUF file is published: its tensor x is not the merged model's" in lines


def test_an_upload_that_breaks_off_again_and_again_is_a_hub_that_does_not_answer():
    with pytest.raises(Problem, match="did not answer"), explained("me/mine", "http://127.0.0.1:1"):
        raise RuntimeError("Error while uploading 'adapter_model.safetensors' to the Hub.") from httpx2.RemoteProtocolError("cut")
    with pytest.raises(RuntimeError, match="something else"), explained("me/mine", "http://127.0.0.1:1"):
        raise RuntimeError("something else")


def restated(folder: Path, name: str, body: bytes) -> None:
    """A file of the run is another, and its manifest says so: whoever may write into the bucket may write both."""
    (folder / name).write_bytes(body)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["metrics.json", "adapter/adapter_config.json"])
@pytest.mark.parametrize("body", [b"[]", b"{}", b"null", b"{", b"[" * 100_000])
def test_a_record_of_another_shape_is_a_sentence_and_nothing_is_published(hub, run, name, body):
    restated(run, name, body)
    with pytest.raises(Problem, match=f"run {RUN_ID} "):
        publish(run, NAME, True, hub.endpoint, TOKEN, print)
    assert not hub.client.repo_exists(NAME)


@pytest.mark.parametrize("name", ["files", "kind", "run_id", "model", "provenance", "versions", "data"])
@pytest.mark.parametrize("value", [None, 5, []])
def test_a_manifest_of_another_shape_is_a_sentence_and_nothing_is_published(hub, run, name, value):
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {name: value}))
    with pytest.raises(Problem, match="is damaged: record is not as a trainer writes it"):
        publish(run, NAME, True, hub.endpoint, TOKEN, print)
    assert not hub.client.repo_exists(NAME)
