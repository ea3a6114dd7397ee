"""The Hub twin against the libraries that fetch by Hub id, each unmodified and in a process of its own."""

import os
import subprocess
import sys
import threading

import pytest
from werkzeug.serving import make_server

from twin import models
from twin.hub.app import Hub

TRANSFORMERS_AND_PEFT = """
import torch
from huggingface_hub import HfApi, ModelCard
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

revision = HfApi().model_info("maker/tiny").sha
tokenizer = AutoTokenizer.from_pretrained("maker/tiny", revision=revision)
base = AutoModelForCausalLM.from_pretrained("maker/tiny", revision=revision)
tokens = tokenizer("Hello", return_tensors="pt")
plain = base(**tokens).logits
tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
expected = tuned(**tokens).logits
assert not torch.equal(plain, expected)

repository = HfApi().create_repo("adapter", private=True).repo_id
tuned.push_to_hub(repository)
tokenizer.push_to_hub(repository)
ModelCard("---\\nlicense: mit\\nbase_model: maker/tiny\\nlibrary_name: peft\\n---\\n# adapter\\n").push_to_hub(repository)
HfApi().create_tag(repository, tag="run-1")

fresh = AutoModelForCausalLM.from_pretrained("maker/tiny")
loaded = PeftModel.from_pretrained(fresh, repository, revision="run-1")
assert torch.equal(loaded(**tokens).logits, expected)
assert "base_model:maker/tiny" in HfApi().model_info(repository).tags
assert AutoTokenizer.from_pretrained(repository)("Hello").input_ids == tokenizer("Hello").input_ids
"""

DATASETS = """
from datasets import load_dataset
from huggingface_hub import HfApi

repository = HfApi().create_repo("rows", repo_type="dataset", private=True).repo_id
rows = '{"text": "one"}\\n{"text": "two"}\\n'
HfApi().upload_file(repo_id=repository, repo_type="dataset", path_in_repo="train.jsonl", path_or_fileobj=rows.encode())
assert load_dataset(repository, split="train")["text"] == ["one", "two"]
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """What a client needs to reach a Hub that serves the tiny model."""
    root = tmp_path_factory.mktemp("world")
    hub = Hub(root / "hub", "hf_writer", {"maker/tiny": models.tiny(root / "tiny")})
    server = make_server("127.0.0.1", 0, hub, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{server.port}", "HF_TOKEN": "hf_writer", "HF_HOME": str(root / "home")}
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "2"}
    yield os.environ | address | quiet
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("script", [TRANSFORMERS_AND_PEFT, DATASETS], ids=["transformers and peft", "datasets"])
@pytest.mark.slow
def test_loads_and_pushes_by_hub_id(script, environment):
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
