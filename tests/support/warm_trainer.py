"""`python -m` for trainer and carrier, torch loaded once for many tests and forked for each: python tests/support/warm_trainer.py SOCKET

An image of it is the real trainer in two thirds less time; its runs compute in one thread, as two beside each other only wait. What reads
the environment while it is imported (huggingface_hub, and so transformers and peft) is left for the run itself.
"""

import importlib
import os
import runpy
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
LIBRARIES = (
    "torch",
    "torch._inductor.compile_fx",
    "torch.ao.quantization.fx",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.export",
    "hydra",
    "jinja2",
    "matplotlib.pyplot",
    "conf.load",
)


def main(words: list[str]) -> None:
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    program, *rest = words
    sys.argv = [str(ROOT / program / "__main__.py"), *rest]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it while it is imported
    for name in LIBRARIES:
        importlib.import_module(name)
    from twin import forkserver

    assert "huggingface_hub" not in sys.modules
    threading.Thread(target=lambda: os.read(0, 1) or os._exit(0), daemon=True).start()  # the process that started it is gone
    forkserver.serve(Path(sys.argv[1]), main)
