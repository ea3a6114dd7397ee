"""Who is told how a run on a fleet ended: by mail and to a webhook, as the run's own settings say; each notice once.

A notice is claimed in S3, beside its run, before it is sent: nobody sends it again, whatever becomes of this process. The box tells of its
runs by remote/scripts/notify.sh; what a webhook gets is the same.
"""

import json
import socket
import string
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError

from carrier import files, state
from carrier.ending import Ending
from carrier.ship import say
from carrier.store import UNREACHABLE, Store
from conf import schema
from conf.text import secret, webhook

TRIES, PAUSE = 3, 10.0  # seconds between two of what was not taken
TIMEOUT = 15.0  # seconds for an answer of a webhook
MOST_METRICS = 1 << 22  # bytes of metrics.json
LONGEST = 600  # letters of what somebody else says
SCORES = {"macro_f1": "macro-F1", "token_f1": "token F1"}
QUICK = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 1})
TITLES = {
    "done": "{run} is done",
    "failed": "{run} has failed",
    "stopped": "{run} was stopped",
    "spot": "AWS takes the instance of {run} back",
    "idle": "{run} was ended: its trainer hangs",
    "cost": "{run} was ended: cost.limit is spent",
}


class NotTaken(Exception):
    """It reached nobody, or was refused: another try makes no second one."""


@dataclass
class Notices:
    store: Store
    settings: schema.Run
    attempt: str  # of which job: each tells of its own end
    about: dict[str, str]  # of the instance
    began: float = field(default_factory=time.monotonic)

    def tell(self, event: str, what: str, then: str, tries: int = TRIES) -> None:
        """Tell of it by every way that is set. Nothing that fails here ends a run otherwise."""
        if event not in self.settings.notify.events:
            return
        run_id = self.settings.run_id or ""
        title = f"fine-tune-slm: {TITLES[event].format(run=run_id)}"
        notice = {"event": event, "run": run_id, "instance": self.about.get("host", ""), "time": state.utc(), "cost": self._spent()}
        notice |= {"title": title, "what": legible(what), "next": legible(then)}
        ways = {"mail": self.settings.notify.email and self._mail, "webhook": self.settings.notify.webhook and self._post}
        for way, send in ways.items():
            if send:
                self._once(f"runs/{run_id}/notices/{event}-{run_id}-{self.attempt}.{way}.json", way, notice, send, tries)

    def _once(self, place: str, way: str, notice: dict[str, str], send, tries: int) -> None:
        def record(what: str) -> bytes:
            return f"{json.dumps({'event': notice['event'], 'way': way, 'state': what, 'time': state.utc()})}\n".encode()

        try:
            if not self.store.claim(place, record("sending"), None):
                return
            became = self._sent(way, send, notice, tries)
            self.store.put(place, record(became))
        except UNREACHABLE as error:
            say(f"S3 does not take what becomes of a notice: {error}")

    def _sent(self, way: str, send, notice: dict[str, str], tries: int) -> str:
        """What became of it: sent, refused, or nobody knows."""
        for left in reversed(range(tries)):
            try:
                send(notice)
                return "sent"
            except NotTaken as error:
                say(f"the notice by {way} was not taken: {error}")
                if left:
                    time.sleep(PAUSE)
            except Exception as error:  # its words may hold the address
                say(f"what became of the notice by {way} is not known ({type(error).__name__})")
                return "unknown"
        return "refused"

    def _mail(self, notice: dict[str, str]) -> None:
        """SNS knows no message again: only what it has not taken is sent again. A subject is ASCII, of 100 characters at most (API
        Reference, Publish)."""
        try:
            arn = boto3.client("sts", config=QUICK).get_caller_identity()["Arn"].split(":")
        except (ClientError, BotoCoreError) as error:
            raise NotTaken("AWS does not answer") from error
        topic = f"arn:{arn[1]}:sns:{self.settings.cloud.region}:{arn[4]}:{self.settings.cloud.own}"
        text = f"{notice['title']}\n\n{notice['what']}\nNext: {notice['next']}\n\n{notice['cost']} so far.\n{notice['time']}\n"
        subject = "".join(sign for sign in notice["title"] if sign in string.printable)[:100]
        try:
            boto3.client("sns", config=QUICK).publish(TopicArn=topic, Subject=subject, Message=text)
        except (ClientError, EndpointConnectionError, ConnectTimeoutError) as error:
            raise NotTaken(f"SNS: {type(error).__name__}") from error

    def _post(self, notice: dict[str, str]) -> None:
        try:
            held = boto3.client("secretsmanager", config=QUICK).get_secret_value(SecretId=self.settings.notify.webhook)["SecretString"]
            form, url, topic = webhook.parse(secret.value(held))
        except (ClientError, BotoCoreError, ValueError) as error:
            raise NotTaken(f"the secret {self.settings.notify.webhook} holds no address that can be read") from error
        data = json.dumps(webhook.body(form, topic, notice)).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method="POST")
        try:
            urllib.request.urlopen(request, timeout=TIMEOUT).close()
        except urllib.error.HTTPError as error:
            raise NotTaken(f"it answered {error.code}") from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ConnectionRefusedError | socket.gaierror):
                raise NotTaken(type(error.reason).__name__) from error
            raise

    def _spent(self) -> str:
        """What this attempt has cost so far, at the price on demand that the run was made with; spot is less."""
        seconds, known = time.monotonic() - self.began, self.settings.provenance
        words = f"{seconds / 60:.0f} min of this instance"
        if known.price_per_hour is None or self.about.get("type") != known.instance_type:
            return f"{words}, at a price that is not known"
        return f"{words}, ${known.price_per_hour * seconds / 3600:.2f} on demand"


def tell_end(notices: Notices, folder: Path, ending: Ending | None) -> None:
    """Tell how the run in this folder ended, or why this attempt at it did."""
    said = {name: str(text or "") for name, text in state.values(state.read(folder)).items()}
    phase, evidence, hint = (said.get(name, "") for name in ("phase", "evidence", "hint"))
    if phase == "done":
        notices.tell("done", score(folder), "`inv publish`, `inv report`")
    elif ending:
        notices.tell(ending.event, evidence, hint, 1 if ending.event == "spot" else TRIES)
    elif phase == "failed":
        notices.tell("failed", f"{said.get('reason') or 'unknown'}: {evidence}", hint)


def score(folder: Path) -> str:
    """Of the exported weights on held-out rows, beside the base model, as the trainer has written it: a figure and nothing else."""
    known = state.values(files.take(folder, "metrics.json", MOST_METRICS))
    for name, words in SCORES.items():
        tuned, base = (_figure(known.get(who), name) for who in ("tuned", "base"))
        if tuned is not None:
            return f"{words} {tuned:.3f} on held-out rows" + ("" if base is None else f" (base model: {base:.3f})")
    return "no score is known"


def _figure(scores: object, name: str) -> float | None:
    value = scores.get(name) if isinstance(scores, dict) else None
    return value if isinstance(value, float) and 0 <= value <= 1 else None


def legible(text: str) -> str:
    """On one line, without secrets, of bounded length: it may be the trainer's."""
    return " ".join(secret.hide(text)[: 2 * LONGEST].split())[:LONGEST]
