"""AWS Batch, in the place of moto's own, which knows no retries, no ceiling and no instances. BATCH.md has the rules."""

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twin.aws import wire
from twin.aws.batch.credentials import Credentials
from twin.aws.batch.definitions import Definitions
from twin.aws.batch.environments import Environments
from twin.aws.batch.hosts import Hosts
from twin.aws.batch.placement import Placement
from twin.aws.batch.queues import Queues
from twin.aws.batch.refusals import client_error
from twin.aws.batch.submissions import Submissions
from twin.aws.batch.tags import Tags
from twin.aws.batch.task import Task
from twin.aws.documented import service_models
from twin.aws.iam.policy import Context


class Batch:
    def __init__(self, clock: Any, region: str, gateway: Callable, boxes: Any, registry: Any, notices: dict[str, dict]):
        self.lock = threading.RLock()
        self.environments, self.definitions = Environments(region), Definitions(region)
        self.queues = Queues(region, self.environments)
        hosts, credentials = Hosts(region, gateway, clock.now), Credentials(region, clock.now)
        self.placement = Placement(self.environments, self.queues, hosts, self.lock, clock, notices)
        self.placement.make_task = partial(
            Task,
            hosts=hosts,
            boxes=boxes,
            registry=registry,
            credentials=credentials,
            started=self.placement.started,
            ended=self.placement.ended,
        )
        submissions, tags = Submissions(region, self.definitions, self.queues, self.placement), Tags(self.things)
        verbs = self.environments.verbs | self.queues.verbs | self.definitions.verbs | submissions.verbs
        unknown = [*service_models.service("batch").operation_names, "GET", "POST", "PUT", "DELETE"]
        self.operations: dict[str, wire.Handler] = {f"batch.{name}": refuse for name in unknown} | credentials.operations
        self.operations |= {f"batch.{name}": self.answering(lambda request, verb=verb: verb(request.json)) for name, verb in verbs.items()}
        self.operations |= {f"batch.{name}": self.answering(verb) for name, verb in tags.verbs.items()}
        self.placement.start()

    def things(self) -> Iterable[Any]:
        """All that can have tags."""
        return [*self.environments.all.values(), *self.queues.all.values(), *self.definitions.all, *self.placement.jobs]

    def tags_of(self, arn: str) -> Context:
        """The tags of a thing of Batch as conditions ask for them."""
        thing = next((one for one in self.things() if one.arn == arn), None) if arn.startswith("arn:aws:batch:") else None
        return {f"aws:ResourceTag/{name}": value for name, value in thing.tags.items()} if thing else {}

    def answering(self, verb: Callable[[wire.Request], dict]) -> wire.Handler:
        def answer(request: wire.Request, forward: wire.Forward) -> wire.Response:
            with self.lock:
                content = verb(request)
            self.placement.wake.set()
            return wire.answer(content)

        return answer


def refuse(request: wire.Request, forward: wire.Forward) -> wire.Response:
    raise client_error(f"This emulation does not know {request.operation} of Batch.")
