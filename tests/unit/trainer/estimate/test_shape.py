"""A model's sizes are read from the first bytes of its files, on the Hub or in a folder, as the model that is loaded has them."""

import json
import shutil
import threading

import pytest
from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN, _MOE_FUSED_TARGETS
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from werkzeug.serving import make_server

from conf import load
from conf.problem import Problem
from conf.text.quoting import quoted
from tests.unit.trainer import architectures
from tests.unit.trainer.llama import CONFIG, LLAMA_8B, TENSORS
from trainer.estimate import architecture, memory, shape
from trainer.estimate.shape import Tensor
from trainer.preflight import preflight
from twin.hub.app import Hub


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Folders of models, the address of a Hub that has them as owner/NAME, and the ranges that it was asked for."""
    place, requests = tmp_path_factory.mktemp("hub"), []
    names = ["experts", "whole", "pickled", "broken"]
    architectures.small("mixtral").save_pretrained(place / "experts", max_shard_size="1MB")
    architectures.small("gemma3").save_pretrained(place / "whole")
    for name in names[2:]:
        shutil.copytree(place / "whole", place / name)
    (place / "pickled/model.safetensors").rename(place / "pickled/pytorch_model.bin")
    (place / "broken/model.safetensors").write_bytes(b"{}")
    hub = Hub(place / "root", "hf_write", {f"owner/{name}": place / name for name in names}, owner="owner")

    def app(environ, start_response):
        if environ["PATH_INFO"].endswith(".safetensors"):
            requests.append(environ.get("HTTP_RANGE"))
        return hub(environ, start_response)

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield place, f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    thread.join()
    server.server_close()


def run(name: str, folder):
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (folder / "held.jsonl").write_text('{"prompt": "c", "completion": "d"}\n')
    rows = [f"data.train={quoted(folder / 'rows.jsonl')}", f"data.validation={quoted(folder / 'held.jsonl')}", "data.fields=null"]
    return load.load(["cloud=twin", f"model.id=owner/{name}", "quant=none", *rows])


@pytest.mark.parametrize("name", ["experts", "whole"])
def test_the_hub_is_asked_for_the_first_bytes_of_each_file_and_the_sizes_are_those_of_the_folder(name, served, tmp_path):
    place, address, requests = served
    requests.clear()
    files, config = len(list((place / name).glob("*.safetensors"))), json.loads((place / name / "config.json").read_text())
    inspection = preflight.inspect(run(name, tmp_path), address, None)
    assert inspection.shape == shape.shape(shape.of_folder(place / name), config) and inspection.shape.layers == architectures.LAYERS
    assert [one for one in requests if one] == ["bytes=0-100000"] * files and (files > 1) == (name == "experts")


def test_a_model_without_safetensors_is_not_planned_and_one_whose_file_is_none_is_named(served, tmp_path):
    _, address, _ = served
    assert preflight.inspect(run("pickled", tmp_path), address, None).shape is None
    with pytest.raises(Problem, match=r"owner/broken ends in .safetensors and is no such file"):
        preflight.inspect(run("broken", tmp_path), address, None)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\x05" + b"\0" * 7 + b"hello"])
def test_a_file_in_a_folder_that_is_no_safetensors_file_is_named(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(Problem, match=r"model.safetensors ends in .safetensors and is no such file"):
        shape.of_folder(tmp_path)


def test_an_adapter_beside_the_weights_is_none_of_them(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "model")
    shutil.copy(folder / "model.safetensors", folder / "adapter_model.safetensors")
    assert shape.of_folder(folder) == shape.of_folder(tiny)


def test_a_head_that_is_the_embedding_counts_once_wherever_it_is_listed():
    tied = shape.shape(TENSORS, CONFIG | {"tie_word_embeddings": True})
    without = {name: tensor for name, tensor in TENSORS.items() if not name.startswith("lm_head")}
    assert tied == shape.shape(without, CONFIG | {"tie_word_embeddings": True})
    assert LLAMA_8B.plain - tied.plain == 128256 * 4096 and LLAMA_8B.counted and LLAMA_8B.layers == 32


def test_a_tower_for_images_counts_only_where_the_class_loads_it():
    tower = {f"model.visual.blocks.{number}.attn.qkv.weight": Tensor((3 * 1280, 1280), "BF16") for number in range(4)}
    seeing = shape.shape(TENSORS | tower, CONFIG)
    assert seeing.quantised - LLAMA_8B.quantised == 4 * 3 * 1280**2 and seeing.layers == 32
    assert shape.shape(TENSORS | tower, CONFIG, text_only=True) == LLAMA_8B
    settings = load.load(["cloud=twin"]).lora
    assert memory.trainable_parameters(seeing, settings) == memory.trainable_parameters(LLAMA_8B, settings)


@pytest.mark.parametrize(
    ("config", "tensors"),
    [
        ({"quant_method": "gptq", "bits": 4}, {"qweight": Tensor((512, 4096), "I32"), "scales": Tensor((32, 4096), "F16")}),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, {"weight": Tensor((8388608, 1), "U8")}),
        ({"quant_method": "fp8"}, {"weight": Tensor((4096, 4096), "F8_E4M3")}),
    ],
)
def test_what_the_owner_has_quantised_takes_what_is_stored_and_gets_the_adapter_of_its_real_size(config, tensors):
    others = {name: tensor for name, tensor in TENSORS.items() if "q_proj" not in name}
    packed = {f"model.layers.{number}.self_attn.q_proj.{name}": one for number in range(32) for name, one in tensors.items()}
    quantised = shape.shape(others | packed, CONFIG | {"quantization_config": config})
    run = load.load(["cloud=twin", "quant=none", "experiment=medical_ie_8b"])
    assert memory.trainable_parameters(quantised, run.lora) == memory.trainable_parameters(LLAMA_8B, run.lora) and not quantised.counted
    saved = 32 * 4096**2 * (1 if config["quant_method"] == "fp8" else 1.5)
    assert memory.base_weights(LLAMA_8B, run.quant, 2) - memory.base_weights(quantised, run.quant, 2) == pytest.approx(saved, rel=0.02)


def test_the_models_whose_experts_get_an_adapter_are_those_of_peft():
    kinds = [kind for kind, verdict in architecture.table().items() if verdict.outcome != "refused"]
    fused = {kind: _MOE_FUSED_TARGETS.get(_MODEL_TO_CONVERSION_PATTERN.get(kind)) for kind in kinds}
    adapted = {
        kind: names["gate_up_proj"] for kind, names in fused.items() if names and get_checkpoint_conversion_mapping(kind) is not None
    }
    assert {kind: list(shape.ADAPTED_EXPERTS[kind][:2]) for kind in kinds if kind in shape.ADAPTED_EXPERTS} == adapted


def test_what_has_no_layers_has_no_sizes():
    assert shape.shape({}, CONFIG) is None and shape.shape({"model.embed_tokens.weight": Tensor((10, 4), "F32")}, CONFIG) is None
