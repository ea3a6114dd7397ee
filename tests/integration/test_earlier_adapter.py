"""`lora.adapter=owner/name` through the whole chain: the box fetches what an earlier run published and goes on; the card says so."""

import hashlib
import json

import pytest
import real_trainer

pytestmark = pytest.mark.slow


def published(laptop, run: str) -> dict:
    return json.loads(laptop.object(f"fine-tune-slm/runs/{run}/published.json"))


def run_ids(laptop) -> list[str]:
    return sorted(
        {key.split("/")[2] for key in laptop.objects() if key.startswith("fine-tune-slm/runs/") and key.endswith("/manifest.json")}
    )


def test_a_run_goes_on_from_the_adapter_that_an_earlier_one_published(laptop):
    real_trainer.register(laptop.state)
    laptop.inv("up", "deploy", "train", "publish")
    (first,) = run_ids(laptop)
    repository, revision = published(laptop, first)["repository"], published(laptop, first)["revision"]
    sha256 = hashlib.sha256(laptop.object(f"fine-tune-slm/runs/{first}/adapter/adapter_model.safetensors")).hexdigest()

    again = (f"lora.adapter={repository}", "name=again", "seed=5")
    laptop.inv("train", "publish", "down", overrides=again)
    (second,) = set(run_ids(laptop)) - {first}
    record = json.loads(laptop.object(f"fine-tune-slm/runs/{second}/manifest.json"))
    assert record["earlier"]["adapter"] == repository and record["earlier"]["revision"] == revision
    assert record["earlier"]["sha256"]["adapter_model.safetensors"] == sha256
    assert f"adapter: goes on from {repository}, sha256 {sha256[:12]}" in laptop.object(f"fine-tune-slm/runs/{second}/log.txt").decode()
    card = laptop.object(f"fine-tune-slm/runs/{second}/card.md").decode()
    assert f"| went on from | the adapter of `{repository}` at `{revision}`, sha256 `{sha256}`" in card
    assert published(laptop, second)["repository"] != repository

    scores = [json.loads(laptop.object(f"fine-tune-slm/runs/{run}/metrics.json"))["completion_loss"] for run in (first, second)]
    assert scores[1]["base"] == pytest.approx(scores[0]["base"], rel=1e-3), "the base's figure is that without the earlier adapter"
    assert scores[1]["tuned"] < scores[0]["tuned"], "four steps more are better than four"
