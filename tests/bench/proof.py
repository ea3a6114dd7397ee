"""What the proof before step 1 costs on SmolLM2-135M, in fp32 and bf16: python -m tests.bench.proof"""

import time
from pathlib import Path

from conf import load, schema
from data.rows import read
from tests.unit.trainer.formats import computed_in
from trainer.model import model, proof, serving
from trainer.rows import prompt

ROOT = Path(__file__).parents[2]


def main() -> None:
    run = load.load(["cloud=twin", "experiment=quickstart"])
    own = schema.Model(str(ROOT / ".cache/models/smollm2-135m"), "main", "", False)
    rows = read(ROOT / run.data.train)[:200]
    for kind in schema.Quantisation:
        for name in ("fp32", "bf16"):
            with computed_in(name):
                base = model.load(own, schema.Quant(kind, True))
                template = prompt.Prompt(base.tokenizer, base.stops, run.data)
                examples = template.examples(rows, run.data)
                tuned = model.add_adapter(base, run.lora, gradient_checkpointing=False)
                begun = time.process_time()
                _, seconds = serving.verify_generation(tuned, base, template, examples)
                proved = proof.verify_training(tuned, examples, run.train)
                print(
                    f"{kind.name} {name}: packs {proved.seconds:.2f} s, serving {seconds:.2f} s, CPU {time.process_time() - begun:.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
