"""What the Hub token may do, asked before anything is paid for: whose it is, and whether a run may be published with it.

The Hub says both in one answer, `whoami-v2`. A classic token has the role `read` or `write`; a fine-grained one (`fineGrained`)
lists permissions for each account, organisation and repository that its owner chose, `repo.write` among them. A token of another
kind, such as that of a login in a browser, lists no permissions.
"""

import re

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from conf.problem import Problem
from trainer.hub_errors import HUB, RULE, explained

LONGEST = 96  # characters of OWNER/NAME
SETTINGS = f"{HUB}/settings/tokens"


def check_write_access(hub: HfApi, repository: str | None, name: str, kind: str, merged: bool = False) -> str:
    """The repository that a run of this name would be published in, once the token of `hub` may write there; else a Problem."""
    with explained(repository or "your account", hub.endpoint):
        account_info = hub.whoami()
    account, token = account_info["name"], (account_info.get("auth") or {}).get("accessToken") or {}
    target = repository_id(repository, name, kind, account)
    check_repository_id(target, merged)
    _check_owner(target, account, {organisation["name"]: organisation.get("roleInOrg") for organisation in account_info.get("orgs") or []})
    if token.get("role") == "read":
        hint = f"make one with the role `write` at {SETTINGS}/new?tokenType=write, then put it in place: `inv init --token FILE`"
        raise Problem(f"the Hub token of {account} may only read, and this run is to be published in {target}", hint, "refused")
    if token.get("role") == "fineGrained" and not _may_write(token, target):
        owner = target.partition("/")[0]
        hint = f"at {SETTINGS} give it `Write access to contents/settings of all repos` (`repo.write`) under {owner}"
        what = f"the Hub token of {account} is fine-grained and has no write access to {owner}, where this run is to be published"
        raise Problem(what, f"{hint}; or name a namespace that it has: `publish.repository=OWNER/NAME`", "refused")
    return target


def repository_id(repository: str | None, name: str, kind: str, account: str) -> str:
    """The repository of a run, OWNER/NAME: the account's own where none is named; a smoke run has one of its own."""
    chosen = repository or name
    owned = chosen if "/" in chosen else f"{account}/{chosen}"
    return f"{owned}-smoke" if kind == "smoke" else owned


def check_repository_id(target: str, merged: bool = False) -> None:
    """A Problem where the Hub does not accept this name, or that of the merged model's repository."""
    for name in [target, *[f"{target}-merged"] * merged]:
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            better = _valid_id(target, len(name) - len(target))
            raise Problem(f"`{name}` cannot be the name of a repository on the Hub", f"{RULE}: `publish.repository={better}`") from error


def _valid_id(target: str, longer: int) -> str:
    """A similar name that the Hub accepts, without suffixes."""
    owner, _, name = target.removesuffix("-smoke").partition("/")
    owner, name = (re.sub(r"([-.])[-.]+", r"\1", re.sub(r"[^A-Za-z0-9_.-]+", "-", part)).strip("-.") for part in (owner, name))
    name = name.removesuffix(".git")[: LONGEST - len(owner) - 1 - max(longer, len("-merged")) - len("-smoke")].strip("-.")
    return f"{owner or 'OWNER'}/{name or 'NAME'}"


def gated_repo_problem(hub: HfApi, model: str) -> Problem | None:
    """Why a token is refused at a gated model although its account may have access: a fine-grained one needs a permission for them."""
    token = (hub.whoami().get("auth") or {}).get("accessToken") or {} if hub.token else {}
    if token.get("role") != "fineGrained" or token.get("fineGrained", {}).get("canReadGatedRepos"):
        return None
    hint = f"at {SETTINGS} give it `Read access to contents of all public gated repos you can access`; and accept the terms of {model}"
    return Problem(f"{model} is gated, and this fine-grained token may not read gated models", hint, "model_unavailable")


def _check_owner(target: str, account: str, organisations: dict[str, str | None]) -> None:
    owner = target.partition("/")[0]
    if owner == account or organisations.get(owner, "read") != "read":
        return
    role = f"a member of {owner} who may only read there" if owner in organisations else f"neither {owner} nor a member of it"
    hint = "publish under a name of your own: `publish.repository=NAME`"
    raise Problem(f"this run is to be published in {target}, and the Hub token's account {account} is {role}", hint, "refused")


def _may_write(token: dict, target: str) -> bool:
    """Whether a fine-grained token may write to the repository, or to all of its owner's."""
    scopes = token.get("fineGrained", {}).get("scoped") or []
    return any(
        "repo.write" in scope.get("permissions", []) and scope.get("entity", {}).get("name") in (target, target.partition("/")[0])
        for scope in scopes
    )
