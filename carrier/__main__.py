"""python -m carrier RUN CONFIG SECONDS LIMIT ATTEMPTS: carry a run from its start to its end, as the first process of a container.

Its environment says where: BUCKET, PREFIX, HUB_SECRET (the secret's name), HF_HOME (the models' place, beside which runs are made).
"""

import os
import resource
import signal
import sys
from pathlib import Path

from carrier.ending import Words
from carrier.job import Job
from carrier.ship import say
from carrier.store import UNREACHABLE, from_environment
from conf import schema
from conf.fleet_job import WORDS, Exit
from conf.problem import Problem


def main(arguments: list[str]) -> int:
    words = _words(arguments)
    if words is None or any(name not in os.environ for name in ("BUCKET", "PREFIX", "HUB_SECRET", "HF_HOME")):
        say(f"it is called as `carrier {' '.join(WORDS).upper()}`, with BUCKET, PREFIX, HUB_SECRET and HF_HOME in its environment")
        return Exit.wrong
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # tokens and rows pass through
    job = Job(words, from_environment(), Path(os.environ["HF_HOME"]).parent)
    signal.signal(signal.SIGTERM, lambda *_: setattr(job, "asked_to_end", True))
    try:
        return job.run()
    except UNREACHABLE as error:
        say(f"AWS does not answer as it has to: {error}")
        return Exit.again
    except (Problem, ValueError) as error:
        say(str(error))
        return Exit.wrong


def _words(arguments: list[str]) -> Words | None:
    try:
        run_id, config, seconds, limit, attempts = arguments
        return Words(run_id, config, float(seconds), limit, int(attempts)) if schema.RUN_ID.fullmatch(run_id) else None
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
