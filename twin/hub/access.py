"""Who asks the Hub, and what they may do.

There is one account, perhaps a member of organisations, with a token that may write and perhaps others; who sends no token is a
stranger. A refusal has the status and the words of the real Hub, because clients tell the cases apart by them.
"""

from dataclasses import dataclass, field

from werkzeug.wrappers import Request

from twin.hub.routes import BROWSER, DOWNLOAD, WRITE
from twin.hub.store import Refused, Repository


@dataclass(frozen=True)
class Token:
    """A token of the account: of a classic role, or fine-grained, with permissions by the name of a user, organisation or repository."""

    role: str  # write, read, fineGrained
    scopes: dict[str, list[str]] = field(default_factory=dict)
    gated: bool = True  # may read gated repositories that the account may read
    expired: bool = False

    def may(self, permission: str, repository: str) -> bool:
        if self.role != "fineGrained":
            return self.role == "write" or permission != "repo.write"
        enough = {permission, "repo.write"}  # who may write may read
        return any(enough & set(self.scopes.get(name, [])) for name in (repository, repository.partition("/")[0]))


class Access:
    def __init__(self, owner: str, tokens: dict[str, Token], organisations: dict[str, str]):
        self.owner = owner
        self.tokens = tokens
        self.organisations = organisations  # which the account is a member of, and as what: read, contributor, write, admin

    def token(self, request: Request) -> Token | None:
        """The token that comes with the request, or None for a stranger."""
        header = request.headers.get("Authorization")
        if header is None:
            return None
        token = self.tokens.get(header.removeprefix("Bearer "))
        if token is None or token.expired:
            raise Refused(401, "Invalid credentials in Authorization header" if token is None else "User Access Token is expired")
        return token

    def require_token(self, request: Request) -> Token:
        """The token of somebody who has one; strangers are refused."""
        token = self.token(request)
        if token is None:
            raise Refused(401, "Invalid username or password.")
        return token

    def grant(self, right: str, request: Request, repository: Repository | None) -> Repository:
        """The repository, if the caller has this right on it."""
        # A browser on this machine counts as logged in, so that the printed address of a private repository opens.
        token = BROWSER_TOKEN if right == BROWSER else self.token(request)
        hidden = repository is not None and repository.private and not (token and token.may("repo.content.read", repository.id))
        if repository is None or hidden:
            if token is None:  # strangers are not told what is private and what is missing
                raise Refused(401, "Invalid username or password.", "RepoNotFound")
            raise Refused(404, "Repository not found", "RepoNotFound")
        if right == DOWNLOAD and repository.gated and not (token and repository.owner == self.owner):
            raise _gate(request, repository, token)
        if right == WRITE:
            self.may_write(request, repository.id)
        if right == WRITE and repository.served:
            raise Refused(403, f"Forbidden: {repository.id} is a served folder and read-only")
        return repository

    def may_write(self, request: Request, name: str) -> None:
        token, owner = self.require_token(request), name.partition("/")[0]
        if owner != self.owner and self.organisations.get(owner, "read") == "read":
            raise Refused(403, f"Forbidden: you don't have the rights to change repositories of {owner}")
        if not token.may("repo.write", name):
            raise Refused(403, "Forbidden: this token may not write here; to change a repository use one that may")


BROWSER_TOKEN = Token("read")


def _gate(request: Request, repository: Repository, token: Token | None) -> Refused:
    if token is None:
        return Refused(401, f"Access to {repository.id} is restricted. Please log in.", "GatedRepo")
    if not token.gated:
        return Refused(
            403, "Please enable access to public gated repositories in your fine-grained token settings to view this repository."
        )
    what = f"Access to {repository.id} is restricted and you are not in the authorized list."
    return Refused(403, f"{what} Visit {request.host_url}{repository.page} to ask for access.", "GatedRepo")
