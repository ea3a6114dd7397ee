"""AWS Batch, in the place of moto's own, which knows no retries, no ceiling and no instances."""

import threading
from collections.abc import Callable

from twin.aws import wire
from twin.aws.batch.environments import Environments
from twin.aws.batch.queues import Queues
from twin.aws.batch.refusals import client_error
from twin.aws.batch.tags import Tags
from twin.aws.documented import service_models


class Batch:
    def __init__(self, region: str):
        self.lock = threading.RLock()
        self.environments = Environments(region)
        self.queues = Queues(region, self.environments)
        self.tags = Tags(lambda: [*self.environments.all.values(), *self.queues.all.values()])
        verbs = self.environments.verbs | self.queues.verbs
        unknown = [*service_models.service("batch").operation_names, "GET", "POST", "PUT", "DELETE"]
        self.operations: dict[str, wire.Handler] = {f"batch.{name}": refuse for name in unknown}
        self.operations |= {f"batch.{name}": self.answering(lambda request, verb=verb: verb(request.json)) for name, verb in verbs.items()}
        self.operations |= {f"batch.{name}": self.answering(verb) for name, verb in self.tags.verbs.items()}

    def answering(self, verb: Callable[[wire.Request], dict]) -> wire.Handler:
        def answer(request: wire.Request, forward: wire.Forward) -> wire.Response:
            with self.lock:
                return wire.answer(verb(request))

        return answer


def refuse(request: wire.Request, forward: wire.Forward) -> wire.Response:
    raise client_error(f"This emulation does not know {request.operation} of Batch.")
