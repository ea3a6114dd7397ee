"""Who asks the Hub, and what they may do.

There is one account, with a token that may write and perhaps one that may only read; who sends no token is a
stranger. A refusal has the status and the words of the real Hub, because clients tell the cases apart by them.
"""

from werkzeug.wrappers import Request

from twin.hub.routes import BROWSER, DOWNLOAD, WRITE
from twin.hub.store import Refused, Repository


class Access:
    def __init__(self, owner: str, token: str, read_token: str | None):
        self.owner = owner
        self.roles = {token: "write"} | ({read_token: "read"} if read_token else {})

    def role(self, request: Request) -> str | None:
        """`write`, `read`, or None for a stranger."""
        header = request.headers.get("Authorization")
        if header is None:
            return None
        role = self.roles.get(header.removeprefix("Bearer "))
        if role is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        return role

    def known(self, request: Request) -> str:
        """The role of somebody with a token; strangers are refused."""
        role = self.role(request)
        if role is None:
            raise Refused(401, "Invalid username or password.")
        return role

    def grant(self, right: str, request: Request, repository: Repository | None) -> Repository:
        """The repository, if whoever asks has this right on it."""
        # A browser on this machine counts as logged in, so that the printed address of a private repository opens.
        role = "read" if right == BROWSER else self.role(request)
        if repository is None or (repository.private and role is None):
            if role is None:  # strangers are not told what is private and what is missing
                raise Refused(401, "Invalid username or password.", "RepoNotFound")
            raise Refused(404, "Repository not found", "RepoNotFound")
        if right == DOWNLOAD and repository.gated and not (role and repository.owner == self.owner):
            raise _gate(request, repository, role)
        if right == WRITE:
            self.may_write(request, repository.owner)
        if right == WRITE and repository.served:
            raise Refused(403, f"Forbidden: {repository.id} is a served folder and read-only")
        return repository

    def may_write(self, request: Request, owner: str) -> None:
        role = self.known(request)
        if owner != self.owner:
            raise Refused(403, f"Forbidden: you don't have the rights to change repositories of {owner}")
        if role != "write":
            raise Refused(403, "Forbidden: this token may only read; to change a repository use one with the role write")


def _gate(request: Request, repository: Repository, role: str | None) -> Refused:
    if role is None:
        return Refused(401, f"Access to {repository.id} is restricted. Please log in.", "GatedRepo")
    what = f"Access to {repository.id} is restricted and you are not in the authorized list."
    return Refused(403, f"{what} Visit {request.host_url}{repository.page} to ask for access.", "GatedRepo")
