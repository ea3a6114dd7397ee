"""What a stranger's model says of itself: whatever stands in its files is read, or is a sentence."""

import json
import struct
from types import SimpleNamespace

import pytest

from conf.problem import Problem
from trainer.estimate import limits, shape
from trainer.preflight import preflight
from trainer.rows import description, tokens

NO_OBJECTS = [b"[]", b'"x"', b"null", b"5", b"{", b"\xff\xfe", b"[" * 100_000, b"{" + b'"a":{' * 5000]
ODD = [
    {"model_type": []},
    {"model_type": {}},
    {"text_config": [1]},
    {"text_config": "x"},
    {"text_config": {"quantization_config": "x"}},
    {"quantization_config": [1]},
    {"quantization_config": {"bits": 0}},
    {"quantization_config": {"bits": "x"}},
    {"num_attention_heads": -1},
    {"num_attention_heads": 10**30},
    {"num_key_value_heads": "x"},
    {"text_config": {"num_key_value_heads": [4]}},
    {"head_dim": 0},
    {"num_experts_per_tok": -1},
]
TENSORS = [
    [],
    {"a": 5},
    *({"a": {"dtype": "F32", "shape": each}} for each in ("xx", [-1, 4], [10**300, 1], ["a"], [None], [4.5], [[]], [1] * 9)),
]


def folder(place, **texts):
    for name, said in texts.items():
        (place / f"{name}.json").write_bytes(said if isinstance(said, bytes) else json.dumps(said).encode())
    return place


@pytest.mark.parametrize("said", NO_OBJECTS, ids=range(len(NO_OBJECTS)))
@pytest.mark.parametrize("name", ["config", "generation_config", "tokenizer_config"])
def test_what_is_no_json_object_is_a_sentence(tmp_path, tiny, name, said):
    (tmp_path / "tokenizer.json").symlink_to(tiny / "tokenizer.json")
    read = {"config": description.config, "generation_config": description.stops, "tokenizer_config": tokens.Tokens}[name]
    with pytest.raises(Problem, match=f"the model's {name}.json ") as told:
        read(folder(tmp_path, **{name: said}))
    assert told.value.reason == "model_unavailable"


@pytest.mark.parametrize("said", ODD, ids=str)
def test_a_config_of_other_types_or_numbers_is_a_sentence_for_all_that_read_it(tmp_path, said):
    place = folder(tmp_path, config=said)
    for read in (description.config, lambda place: limits.check_token_limits(place, [], [], None), description.stops):
        with pytest.raises(Problem, match="the model's config.json says "):
            read(place)


@pytest.mark.parametrize("said", ["x", {}, [[]], -1, 10**30, 1.5, True, ["x"]], ids=str)
def test_a_stop_is_the_number_of_a_token(tmp_path, said):
    with pytest.raises(Problem, match="as the token that ends an answer"):
        description.stops(folder(tmp_path, generation_config={"eos_token_id": said}))


@pytest.mark.parametrize(
    "said",
    [
        *({"eos_token": each} for each in ([], 5, {"content": 5})),
        *({"model_max_length": each} for each in ([], "many")),
        *({"chat_template": each} for each in (5, [5], [{"name": "x"}], {"a": 1}, [{"name": "x", "template": 1}])),
    ],
    ids=str,
)
def test_tokens_and_templates_of_a_tokenizer_are_text(tmp_path, tiny, said):
    (tmp_path / "tokenizer.json").symlink_to(tiny / "tokenizer.json")
    with pytest.raises(Problem, match="the model's tokenizer_config.json "):
        tokens.Tokens(folder(tmp_path, tokenizer_config=said))


@pytest.mark.parametrize("said", [b"[]", b"{", b"\xff"])
def test_a_tokenizer_that_is_none_is_a_sentence(tmp_path, said):
    with pytest.raises(Problem, match=r"the model's tokenizer\.json cannot be read"):
        tokens.Tokens(folder(tmp_path, tokenizer=said))


def test_a_template_that_is_no_text_is_a_sentence(tmp_path, tiny):
    (tmp_path / "tokenizer.json").symlink_to(tiny / "tokenizer.json")
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(Problem, match=r"chat_template\.jinja cannot be read"):
        tokens.Tokens(tmp_path)


@pytest.mark.parametrize("listed", TENSORS, ids=str)
def test_a_header_lists_tensors_of_sizes_that_there_are(tmp_path, listed):
    head = json.dumps(listed).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
    with pytest.raises(Problem, match="ends in .safetensors and is no such file"):
        shape.of_folder(tmp_path)


def tensor(*sizes: int, kind: str = "F32") -> shape.Tensor:
    return shape.tensor(list(sizes), kind)


@pytest.mark.parametrize("kind", ["F32", "U8"])
def test_a_model_of_no_width_or_of_endless_kinds_of_layers_has_no_sizes(kind):
    """Each kind is planned by itself: twenty thousand kept a laptop busy for a minute and a half."""
    query = "model.layers.{}.self_attn.q_proj.weight"
    none = {"model.embed_tokens.weight": tensor(4, 0), query.format(0): tensor(4, 4, kind=kind)}
    endless = {"model.embed_tokens.weight": tensor(4, 4)} | {query.format(n): tensor(4, 4 + n) for n in range(2000)}
    assert shape.shape(none, {}) is None and shape.shape(endless, {}) is None


@pytest.mark.parametrize("name", preflight.ALLOW_PATTERNS)
def test_a_file_that_is_larger_than_any_model_s_is_not_fetched(settings_for, tmp_path, monkeypatch, name):
    files = [SimpleNamespace(rfilename="config.json", size=500), SimpleNamespace(rfilename=name, size=10**12)]
    hub = SimpleNamespace(model_info=lambda *_, **__: SimpleNamespace(siblings=files, sha="0" * 40))
    monkeypatch.setattr(preflight, "_hub", lambda *_: hub)
    monkeypatch.setattr(preflight, "snapshot_download", lambda *_, **__: pytest.fail("it was fetched"))
    with pytest.raises(Problem, match=rf"the model's {name} has 1,000,000,000,000 bytes"):
        preflight.inspect(settings_for(tmp_path, "model.id=stranger/model"), None, None)
