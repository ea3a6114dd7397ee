"""What the Hub lets this token do: read the base model, write where the run is published. Nothing is changed."""

from huggingface_hub import HfApi

from conf.finding import BROKEN, OK, Finding
from conf.problem import Problem
from conf.schema import Run
from trainer.hub import permissions
from trainer.preflight import preflight


def check_hub_access(run: Run, endpoint: str | None, token: str) -> list[Finding]:
    """The token's rights, and then the base model."""
    hub = HfApi(endpoint=endpoint, token=token)
    try:
        target = permissions.check_write_access(
            hub, run.publish.repository or run.cloud.hub_repository, run.name, run.kind.value, run.publish.merged
        )
    except Problem as problem:
        return [Finding("token", BROKEN, problem.what, "the base model and the published adapter need it", problem.hint)]
    return [Finding("token", OK, f"it may write to {target}"), _model(run, hub)]


def _model(run: Run, hub: HfApi) -> Finding:
    try:
        facts = preflight.check_model(hub, run, hub.endpoint)
    except Problem as problem:
        return Finding("model", BROKEN, problem.what, "the run starts from it", problem.hint)
    if facts["need_gb"] > run.box.disk_gb:
        what = f"box.disk_gb={run.box.disk_gb} is less than the {facts['need_gb']} GB that a run of {run.model.id} takes"
        return Finding("volume", BROKEN, what, "model cache and runs are on it", f"`box.disk_gb={facts['need_gb']}`")
    return Finding("model", OK, f"{run.model.id} at {facts['model_revision'][:12]}, {facts['need_gb']} GB of {run.box.disk_gb} GB")
