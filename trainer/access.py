"""What the Hub lets this token do: read the base model, write where the run is published. Nothing is changed."""

from huggingface_hub import HfApi

from conf.finding import BROKEN, NOTE, OK, Finding
from conf.problem import Problem
from conf.schema import Run
from trainer import preflight
from trainer.hub import explained

TOKENS = "https://huggingface.co/settings/tokens"


def check(run: Run, endpoint: str | None, token: str) -> list[Finding]:
    """The token's rights, and the base model."""
    try:
        with explained("the token", endpoint):
            who = HfApi(endpoint=endpoint, token=token).whoami()
    except Problem as problem:
        command = f"make one at {TOKENS}, then `aws secretsmanager put-secret-value --secret-id {run.cloud.hub_secret} --secret-string file://...`"
        return [Finding("token", BROKEN, problem.what, "the base model and the published adapter need it", command)]
    return [_token(who, run), *_model(run, endpoint, token)]


def _token(who: dict, run: Run) -> Finding:
    owner = (run.publish.repository or who["name"]).split("/")[0]
    role = who.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read" or (role == "fineGrained" and not _may_write(who, owner)):
        command = f"give it write access to contents of repositories of {owner}, at {TOKENS}"
        return Finding("token", BROKEN, f"the token of {who['name']} may not write for {owner}", "`publish` uploads with it", command)
    if owner != who["name"] and owner not in [one["name"] for one in who.get("orgs", [])]:
        what = f"{who['name']} is no member of {owner}, where publish.repository is"
        return Finding("token", NOTE, what, "`publish` uploads there", f"`publish.repository={who['name']}/NAME`")
    return Finding("token", OK, f"{who['name']}, {role or 'of unknown role'}")


def _may_write(who: dict, owner: str) -> bool:
    scopes = who["auth"]["accessToken"].get("fineGrained", {}).get("scoped", [])
    return any("repo.write" in one.get("permissions", []) and one.get("entity", {}).get("name") == owner for one in scopes)


def _model(run: Run, endpoint: str | None, token: str) -> list[Finding]:
    try:
        found = preflight.model(HfApi(endpoint=endpoint, token=token), run.model.id, run.model.revision, endpoint)
    except Problem as problem:
        return [Finding("model", BROKEN, problem.what, "the run starts from it", problem.hint)]
    if found["need_gb"] > run.box.disk_gb:
        what = f"box.disk_gb={run.box.disk_gb} is less than the {found['need_gb']} GB that a run of {run.model.id} takes"
        return [Finding("volume", BROKEN, what, "model cache and runs are on it", f"`box.disk_gb={found['need_gb']}`")]
    return [Finding("model", OK, f"{run.model.id} at {found['model_revision'][:12]}, {found['need_gb']} GB of {run.box.disk_gb} GB")]
