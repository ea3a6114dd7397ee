"""What is sure to fail fails on the laptop, with the file and the line."""

import json
import threading

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from werkzeug.serving import make_server

from conf import load
from conf.problem import Problem
from conf.text.quoting import quoted
from trainer.files import digest
from trainer.preflight import preflight
from trainer.preflight.preflight import check_inputs, run_checks
from twin.hub.access import Token
from twin.hub.app import Hub

TOKEN = "hf_write"
MODEL, GATED, DATASET = "owner/base", "meta-llama/gated", "owner/notes"
WRITE = ["repo.content.read", "repo.write"]
TOKENS = {
    "hf_read": Token("read"),
    "hf_expired": Token("write", expired=True),
    "hf_own": Token("fineGrained", {"owner": WRITE}, gated=False),
    "hf_model": Token("fineGrained", {"owner/quickstart": WRITE}),
    "hf_team": Token("fineGrained", {"team": WRITE, "owner": ["repo.content.read"]}),
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with an open model, a gated one of somebody else and a dataset of the caller."""
    place = tmp_path_factory.mktemp("hub")
    (place / "model").mkdir()
    (place / "model" / "config.json").write_text('{"model_type": "llama"}')
    models = {MODEL: place / "model", GATED: place / "model"}
    served = Hub(
        place / "root", TOKEN, models, owner="owner", gated=[GATED], tokens=TOKENS, organisations={"team": "write", "guests": "read"}
    )
    server = make_server("127.0.0.1", 0, served, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def row(number, **output):
    return json.dumps({"instruction": "Give the facts.", "input": f"Note {number}.", "output": output or {"stage": "IV", "gene": None}})


def run(folder, *words, train=None, validation=None):
    (folder / "train.jsonl").write_text("\n".join(train or [row(1), row(2)]) + "\n")
    (folder / "validation.jsonl").write_text("\n".join(validation or [row(3)]) + "\n")
    data = [
        f"data.train={quoted(folder / 'train.jsonl')}",
        f"data.validation={quoted(folder / 'validation.jsonl')}",
        "data.fields=[stage,gene]",
    ]
    return load.load(["cloud=twin", f"model.id={MODEL}", *data, *words])


def refusal(settings, hub, token=TOKEN):
    with pytest.raises(Problem) as problem:
        check_inputs(settings, hub, token)
    return problem.value


def test_good_settings_become_facts(tmp_path, hub):
    facts = check_inputs(run(tmp_path), hub, TOKEN)
    assert (facts["train_rows"], facts["validation_rows"]) == (2, 1)
    assert facts["train_sha256"] == digest(tmp_path / "train.jsonl")
    assert facts["validation_sha256"] == digest(tmp_path / "validation.jsonl")
    assert len(facts["model_revision"]) == 40


def test_the_room_that_is_asked_of_the_volume_knows_the_run(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(
        preflight.memory, "disk_bytes", lambda shape, settings, weights: 10**9 * (settings.train.save_total_limit + weights) + 1
    )
    assert check_inputs(run(tmp_path), hub, TOKEN)["need_gb"] == 4
    assert check_inputs(run(tmp_path, "train.save_total_limit=30"), hub, TOKEN)["need_gb"] == 31


def test_a_broken_row_is_named_by_file_and_line(tmp_path, hub):
    problem = refusal(run(tmp_path, train=[row(1), '{"instruction": "a", "output"']), hub)
    assert f"{tmp_path}/train.jsonl:2: the line is not JSON" in problem.what and problem.reason == "bad_data"


def test_a_file_without_rows_is_refused(tmp_path, hub):
    assert "holds no rows" in refusal(run(tmp_path, validation=[""]), hub).what


def test_a_missing_file_is_named_with_its_setting(tmp_path, hub):
    problem = refusal(run(tmp_path, "data.validation=nowhere.jsonl"), hub)
    assert problem.what == "data.validation names nowhere.jsonl, and there is no such file"


def test_a_file_of_another_kind_is_refused(tmp_path, hub):
    (tmp_path / "rows.txt").write_text("a")
    assert "none of .jsonl, .json, .csv, .tsv, .parquet" in refusal(run(tmp_path, f"data.train={quoted(tmp_path / 'rows.txt')}"), hub).what


def test_tables_are_read_here_too(tmp_path, hub):
    (tmp_path / "rows.csv").write_text("prompt,completion\na,b\n")
    facts = check_inputs(run(tmp_path, f"data.train={quoted(tmp_path / 'rows.csv')}", "data.fields=null"), hub, TOKEN)
    assert facts["train_rows"] == 1 and len(facts["train_sha256"]) == 64
    assert "rows.csv:2 answers with plain text" in refusal(run(tmp_path, f"data.train={quoted(tmp_path / 'rows.csv')}"), hub).what


def test_parquet_is_left_to_the_trainer_where_pyarrow_is_missing(tmp_path, hub, monkeypatch):
    (tmp_path / "rows.parquet").write_bytes(b"of no matter")
    settings = run(tmp_path, f"data.train={quoted(tmp_path / 'rows.parquet')}")
    assert "the file is not Parquet" in refusal(settings, hub).what
    monkeypatch.setattr(preflight, "find_spec", lambda _name: None)
    facts = check_inputs(settings, hub, TOKEN)
    assert facts["train_rows"] is None and len(facts["train_sha256"]) == 64


def test_held_out_rows_that_are_also_trained_on_are_refused_wherever_they_stand(tmp_path, hub, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a key of an override cannot be quoted
    (tmp_path / "more.jsonl").write_text(row(3) + "\n")
    problem = refusal(run(tmp_path, "data.also={more.jsonl: 2}"), hub)
    assert problem.what.startswith("data.also and data.validation are the same rows") and problem.reason == "bad_data"


def test_the_same_rows_twice_are_refused_even_under_two_names(tmp_path, hub):
    assert "same rows" in refusal(run(tmp_path, train=[row(1)], validation=[row(1)]), hub).what


def test_a_field_that_no_row_has_is_named_with_those_there_are(tmp_path, hub):
    problem = refusal(run(tmp_path, "data.fields=[stage,gen]"), hub)
    assert "has the field 'gen'" in problem.what and "'data.fields=[gene,stage]'" in problem.hint


def test_an_answer_in_plain_text_cannot_have_fields(tmp_path, hub):
    text = json.dumps({"prompt": "Why?", "completion": "Because."})
    problem = refusal(run(tmp_path, train=[row(1), text]), hub)
    assert "train.jsonl:2 answers with plain text" in problem.what and "data.fields=null" in problem.hint
    assert check_inputs(run(tmp_path, "data.fields=null", train=[row(1), text]), hub, TOKEN)["train_rows"] == 2


def test_an_unknown_model_is_one_sentence(tmp_path, hub):
    problem = refusal(run(tmp_path, "model.id=owner/nothing"), hub)
    assert "no repository owner/nothing" in problem.what and problem.reason == "model_unavailable"


def test_an_unknown_revision_is_one_sentence(tmp_path, hub):
    assert "no such revision" in refusal(run(tmp_path, "model.revision=elsewhere"), hub).what


def test_a_gated_model_says_where_to_accept_its_terms(tmp_path, hub):
    problem = refusal(run(tmp_path, f"model.id={GATED}"), hub)
    assert problem.what == f"{GATED} is gated and this token's account has no access" and problem.reason == "model_unavailable"
    assert f"{hub}/{GATED}" in problem.hint


def test_a_gated_model_and_no_token_is_another_sentence(tmp_path, hub):
    problem = refusal(run(tmp_path, f"model.id={GATED}"), hub, None)
    assert problem.what == f"{GATED} is gated, and there is no token"
    assert f"{hub}/{GATED}" in problem.hint and "settings/tokens" in problem.hint


def test_a_fine_grained_token_without_leave_for_gated_models_is_another(tmp_path, hub):
    problem = refusal(run(tmp_path, f"model.id={GATED}"), hub, "hf_own")
    assert problem.what == f"{GATED} is gated, and this fine-grained token may not read gated models"
    assert "public gated repos" in problem.hint


@pytest.mark.parametrize("token", ["hf_wrong", "hf_expired"])
def test_a_token_that_is_wrong_or_expired_is_one_sentence(token, tmp_path, hub):
    problem = refusal(run(tmp_path), hub, token)
    assert "does not accept the token (401): it is wrong, revoked or expired" in problem.what
    assert "settings/tokens" in problem.hint and token not in str(problem)


def test_a_token_that_may_only_read_is_refused_before_training(tmp_path, hub):
    problem = refusal(run(tmp_path), hub, "hf_read")
    assert problem.what == "the Hub token of owner may only read, and this run is to be published in owner/quickstart"
    assert "tokenType=write" in problem.hint and "inv init --token" in problem.hint


@pytest.mark.parametrize(
    ("token", "words", "place"),
    [
        (TOKEN, [], "owner/quickstart"),
        (TOKEN, ["publish.repository=team/notes"], "team/notes"),
        (TOKEN, ["kind=smoke"], "owner/quickstart-smoke"),
        (TOKEN, ["cloud.hub_repository=team/ours"], "team/ours"),
        ("hf_own", [], "owner/quickstart"),
        ("hf_model", [], "owner/quickstart"),
        ("hf_team", ["publish.repository=team/notes"], "team/notes"),
    ],
)
def test_a_token_that_may_write_is_reported_with_the_repository(token, words, place, tmp_path, hub):

    facts, report = run_checks(run(tmp_path, *words), hub, token, None, None, False)
    assert facts["repository"] == place
    assert any(line.startswith(f"hub      the token may write to {place},") for line in report.lines)
    HfApi(endpoint=hub, token=token).create_repo(place, exist_ok=True)  # and so it is


@pytest.mark.parametrize(
    ("token", "words", "place"),
    [("hf_team", [], "owner"), ("hf_own", ["publish.repository=team/notes"], "team"), ("hf_model", ["name=other"], "owner")],
)
def test_a_fine_grained_token_without_that_namespace_names_it(token, words, place, tmp_path, hub):
    problem = refusal(run(tmp_path, *words), hub, token)
    assert f"is fine-grained and has no write access to {place}, where" in problem.what
    assert "`repo.write`" in problem.hint and "publish.repository=OWNER/NAME" in problem.hint


def test_a_namespace_that_is_not_the_account_s_is_refused(tmp_path, hub):
    problem = refusal(run(tmp_path, "publish.repository=strangers/x"), hub)
    assert "account owner is neither strangers nor a member of it" in problem.what
    assert "who may only read there" in refusal(run(tmp_path, "publish.repository=guests/x"), hub).what


def test_an_open_model_needs_no_token(tmp_path, hub):
    facts, report = run_checks(run(tmp_path), hub, None, None, None, False)
    assert facts["train_rows"] == 2 and facts["repository"] is None and any("no token here" in line for line in report.lines)


def test_a_hub_that_is_down_is_one_sentence(tmp_path):
    problem = refusal(run(tmp_path), "http://127.0.0.1:9")
    assert "did not answer" in problem.what and problem.reason == "unreachable"


def test_a_dataset_of_the_hub_must_exist_and_be_named_whole(tmp_path, hub):
    assert "no repository owner/notes" in refusal(run(tmp_path, "data.train='hub:owner/notes:train'"), hub).what
    assert "cannot read the dataset" in refusal(run(tmp_path, "data.train='hub:owner/notes'"), hub).what


def test_a_dataset_of_the_hub_is_found(tmp_path, hub):

    HfApi(endpoint=hub, token=TOKEN).create_repo(DATASET, repo_type="dataset", exist_ok=True)
    facts = check_inputs(run(tmp_path, f"data.train='hub:{DATASET}:train'"), hub, TOKEN)
    assert facts["train_rows"] is None and facts["train_sha256"] is None


@pytest.mark.parametrize(
    ("config", "what", "hint"),
    [
        ({}, None, ""),
        ({"r": 8}, "has r=8, and this run has 16", "`lora.r=8`"),
        ({"use_rslora": True}, "has use_rslora=True, and this run has False", "`lora.options.use_rslora=true`"),
        (
            {"base_model_name_or_path": "owner/other"},
            "was trained on owner/other, and this run trains owner/base",
            "`model.id=owner/other`",
        ),
        ({"revision": "0" * 40}, "at 000000000000, and this run has", f"`model.revision={'0' * 40}`"),
        ({"peft_type": "LOHA"}, "is of the kind LOHA, not LORA", "`lora.adapter=null`"),
        (None, "has no adapter_config.json", "`lora.adapter=null`"),
    ],
    ids=["fits", "rank", "scale", "base", "commit", "kind", "no adapter"],
)
def test_an_adapter_of_the_hub_to_go_on_from_is_looked_at_on_the_laptop(config, what, hint, tmp_path, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    client, name = HfApi(endpoint=hub, token=TOKEN), f"owner/{tmp_path.name}"
    client.create_repo(name)
    fitting = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "base_model_name_or_path": MODEL, "revision": None}
    files = {"adapter_model.safetensors": b"weights"}
    files |= {} if config is None else {"adapter_config.json": json.dumps(fitting | config).encode()}
    client.create_commit(name, [CommitOperationAdd(file, body) for file, body in files.items()], commit_message="an adapter")
    settings = run(tmp_path, f"lora.adapter={name}")
    if what is None:
        check_inputs(settings, hub, TOKEN)
        return
    problem = refusal(settings, hub)
    assert what in problem.what and hint in problem.hint
