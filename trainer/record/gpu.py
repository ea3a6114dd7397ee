"""What the GPUs do while a run works, as nvidia-smi tells it; and, from the run's events, for what they were busy."""

import subprocess
import threading
from dataclasses import dataclass
from datetime import datetime

from conf.problem import Problem

PERIOD = 5.0  # seconds between two looks
ASKED = ("utilization.gpu", "memory.used", "power.draw", "temperature.gpu")  # percent, MiB, W, degrees Celsius
BUSY = 0.8  # of the time, from where on there is nothing to gain
WORTH = 0.1  # of a run's time, below which no advice is given
ADVICE = {"training": "a larger `train.pack_tokens`", "scoring": "a larger `train.eval_batch_size`"}


@dataclass(frozen=True)
class Sample:
    """One look at all GPUs of the machine."""

    utilization: float  # mean share of the time in which a kernel ran
    memory: int  # bytes, of the fullest
    power: float | None  # W, of all together; None where a card does not say
    temperature: float | None  # degrees Celsius, of the hottest


class Sampler:
    """Looks at the GPUs every few seconds, in a thread of its own, until `close`."""

    def __init__(self, period: float = PERIOD):
        self.period, self.samples, self.lock, self.closed = period, [], threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)
        self.thread.start()

    def take(self) -> dict:
        """What was seen since the last call: means, and the highest of memory and temperature; empty where nothing was."""
        with self.lock:
            seen, self.samples = self.samples, []
        if not seen:
            return {}
        powers, temperatures = [one.power for one in seen if one.power is not None], [one.temperature for one in seen if one.temperature]
        return {
            "utilization": round(sum(one.utilization for one in seen) / len(seen), 3),
            "memory": max(one.memory for one in seen),
            "power": round(sum(powers) / len(powers), 1) if powers else None,
            "temperature": max(temperatures, default=None),
        }

    def close(self) -> None:
        self.closed.set()
        self.thread.join()

    def _run(self) -> None:
        while not self.closed.wait(self.period):
            try:
                sample = look()
            except Problem as problem:
                print(f"note: {problem.what}; the GPU is not sampled", flush=True)
                return
            with self.lock:
                self.samples.append(sample)


def look() -> Sample:
    """One sample; a Problem where nvidia-smi gives none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=30, check=True).stdout
        cards = [[_number(cell) for cell in line.split(",")] for line in output.splitlines() if line.strip()]
        utilization, memory, power, temperature = (list(column) for column in zip(*cards, strict=True))
        return Sample(
            sum(value or 0.0 for value in utilization) / len(cards) / 100,
            round(max(value or 0.0 for value in memory) * 2**20),
            None if None in power else sum(power),
            max((value for value in temperature if value is not None), default=None),
        )
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise Problem(f"nvidia-smi gives no figures ({error})", "`nvidia-smi` shows what it says") from error


def _number(cell: str) -> float | None:
    """A cell's number; None for `[N/A]` and the like."""
    try:
        return float(cell)
    except ValueError:
        return None


@dataclass(frozen=True)
class Use:
    activity: str
    seconds: float
    utilization: float  # share of these seconds


def usage(events: list[dict]) -> list[Use]:
    """For what, how long and how much the GPUs were used, the longest first; empty where nobody has looked at them."""
    spent: dict[str, list[float]] = {}
    before = None
    for event in events:
        try:
            at, activity, seen = datetime.fromisoformat(event["time"]), _activity(event), event.get("gpu")
            begins = event["event"] == "phase" and event["phase"] == "running"  # what lies before it is another attempt's
            if before and not begins and seen:
                passed = max(0.0, (at - before).total_seconds())
                busy = passed * float(seen["utilization"])
                spent[activity] = [had + more for had, more in zip(spent.get(activity, [0.0, 0.0]), (passed, busy), strict=True)]
        except (LookupError, TypeError, ValueError, AttributeError):  # it may be anybody's
            continue
        before = at
    uses = [Use(activity, seconds, busy / seconds) for activity, (seconds, busy) in spent.items() if seconds > 0]
    return sorted(uses, key=lambda use: -use.seconds)


def _activity(event: dict) -> str:
    """What was done up to an event."""
    if event["event"] == "progress":
        return "loading" if event["what"] == "loading model" else "scoring"
    return {"step": "training", "eval": "measuring held-out rows", "score": "scoring"}.get(event["event"], "saving")


def sentence(uses: list[Use]) -> str:
    """How busy the GPUs were, and what would use them better; empty where nobody has looked at them."""
    whole = sum(use.seconds for use in uses)
    if not whole:
        return ""
    busy = sum(use.seconds * use.utilization for use in uses) / whole
    parts = ", ".join(f"{use.activity} {use.utilization:.0%} of {use.seconds:.0f} s" for use in uses)
    idle = [use for use in uses if use.utilization < BUSY and use.seconds >= WORTH * whole and use.activity in ADVICE]
    advice = "; ".join(f"{use.activity} leaves it idle: {ADVICE[use.activity]} may help" for use in idle)
    return f"the GPU was busy {busy:.0%} of the time: {parts}" + (f". {advice[0].upper()}{advice[1:]}" if advice else "")
