"""A Hugging Face Hub on this machine: enough of its HTTP API for an unmodified `huggingface_hub`.

`Hub` is a WSGI application. Clients are pointed at it by HF_ENDPOINT and must set HF_HUB_DISABLE_XET=1, because it
speaks the older upload protocol (git LFS over HTTP). It checks tokens, rights, hashes and that each large file of a
commit was uploaded. `routes` says which request comes to which method here, `access` who may do what,
`store` and `blobs` keep it all on disk.
"""

import json
from collections.abc import Collection
from pathlib import Path

from werkzeug.exceptions import HTTPException
from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

from twin.hub import card, page, upload, view
from twin.hub.access import Access, Token
from twin.hub.blobs import Damaged
from twin.hub.routes import ROUTES, WRITE
from twin.hub.store import Commit, Refused, Repository, Store


class Hub:
    """The Hub of one account, `owner`; `models` are folders shown as repositories by their id, `gated` some of these.

    `token` may write, `read_token` may read; `tokens` are others. `organisations` says what the account is in each of its own.
    """

    def __init__(
        self,
        root: Path,
        token: str,
        models: dict[str, Path],
        owner: str = "local-user",
        read_token: str | None = None,
        gated: Collection[str] = (),
        part_size: int = 64 * 2**20,
        tokens: dict[str, Token] | None = None,
        organisations: dict[str, str] | None = None,
    ):
        classic = {token: Token("write")} | ({read_token: Token("read")} if read_token else {})
        self.access = Access(owner, classic | (tokens or {}), organisations or {})
        self.store = Store(root)
        self.blobs = self.store.blobs
        self.part_size = part_size  # bytes; a larger file is uploaded in parts
        self.store.serve(models, gated)

    def __call__(self, environ, start_response):
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        try:
            (right, name), arguments = ROUTES.bind_to_environ(request.environ).match()
            if right:
                repository = self.store.find(arguments.pop("kind"), f"{arguments.pop('owner')}/{arguments.pop('name')}")
                arguments["repository"] = self.access.grant(right, request, repository)
            answer = getattr(self, f"_{name}")(request, **arguments)
        except Refused as refused:
            return _refusal(refused)
        except Damaged as damaged:
            return _refusal(Refused(400, str(damaged)))
        except HTTPException as error:
            return _refusal(Refused(error.code, f"{request.method} {request.path}: {error.description}"))
        return answer if isinstance(answer, Response) else _json(answer)

    # The account and its repositories

    def _whoami(self, request: Request) -> dict:
        return view.account(self.access.owner, self.access.require_token(request), self.access.organisations)

    def _validate_card(self, request: Request) -> Response:
        faults = card.faults(request.get_json()["content"])
        return _json({"errors": [{"message": fault} for fault in faults], "warnings": []}, 400 if faults else 200)

    def _create(self, request: Request) -> Response:
        asked = request.get_json()
        kind, name = self._named(asked)
        self.access.may_write(request, name)
        private = asked.get("visibility") == "private" or asked.get("private") is True
        repository, new = self.store.create(kind, name, private)
        answer = {"url": request.host_url + repository.page, "name": name, "id": name}
        return _json(answer) if new else _json(answer | {"error": f"You already created this {kind[:-1]} repo"}, 409)

    def _delete(self, request: Request) -> dict:
        kind, name = self._named(request.get_json())
        self.store.delete(self.access.grant(WRITE, request, self.store.find(kind, name)))
        return {}

    def _named(self, asked: dict) -> tuple[str, str]:
        """Kind and full name of the repository that the body of a request is about."""
        kind = f"{asked.get('type') or 'model'}s"
        if kind not in ("models", "datasets"):
            raise Refused(400, f"the Hub here keeps models and datasets, no {kind}")
        return kind, f"{asked.get('organization') or self.access.owner}/{asked['name']}"

    def _settings(self, request: Request, repository: Repository) -> dict:
        asked = request.get_json()
        with self.store.changing(repository) as repository:
            repository.gated = asked.get("gated", repository.gated)
            repository.private = asked.get("visibility", "private" if repository.private else "public") == "private"
        return {"private": repository.private, "gated": repository.gated}

    def _confirm(self, request: Request, repository: Repository) -> dict:
        return {}  # to come here is the answer

    # Reading

    def _information(self, request: Request, repository: Repository, revision: str = "main") -> dict:
        commit = self.store.read(repository, revision)
        return view.information(repository, commit, self._readme(commit), with_files="blobs" in request.args)

    def _tree(self, request: Request, repository: Repository, revision: str, path: str = "") -> list[dict]:
        commit = self.store.read(repository, revision)
        entries = view.tree(commit.files, path, recursive=_is_true(request.args.get("recursive")))
        if path and not entries:
            raise Refused(404, f"{path} does not exist on {revision}", "EntryNotFound", commit.id)
        return self._dated(repository, commit, entries) if _is_true(request.args.get("expand")) else entries

    def _paths(self, request: Request, repository: Repository, revision: str) -> list[dict]:
        commit = self.store.read(repository, revision)
        entries = view.paths(commit.files, request.form.getlist("paths"))
        return self._dated(repository, commit, entries) if _is_true(request.form.get("expand")) else entries

    def _dated(self, repository: Repository, commit: Commit, entries: list[dict]) -> list[dict]:
        """The entries, each file with the commit that last changed it."""
        for entry in entries:
            if entry["type"] == "file":
                entry["lastCommit"] = view.last_commit(self.store.last_change(repository, commit, entry["path"]))
        return entries

    def _commits(self, request: Request, repository: Repository, revision: str) -> list[dict]:
        return [view.commit(one, repository.owner) for one in self.store.history(repository, revision)]

    def _references(self, request: Request, repository: Repository) -> dict:
        return view.references(repository)

    def _content(self, request: Request, repository: Repository, revision: str, path: str) -> Response:
        commit = self.store.read(repository, revision)
        file = commit.files.get(path)
        source = self.blobs.path(file.sha256) if file else None
        if source is None:
            raise Refused(404, "Entry not found", "EntryNotFound", commit.id)
        kind = "application/octet-stream" if file.lfs else "text/plain; charset=utf-8"
        answer = send_file(source, request.environ, mimetype=kind, download_name=path.split("/")[-1], etag=file.etag)
        answer.headers["X-Repo-Commit"] = commit.id
        if file.lfs:
            answer.headers["X-Linked-Size"] = str(file.size)
            answer.headers["X-Linked-Etag"] = f'"{file.etag}"'
        return answer

    def _readme(self, commit: Commit) -> str:
        file = commit.files.get("README.md")
        source = self.blobs.path(file.sha256) if file else None
        return source.read_text(encoding="utf-8", errors="replace") if source else ""

    # Uploading

    def _preupload(self, request: Request, repository: Repository, revision: str) -> dict:
        commit = self.store.read(repository, revision)
        return {"commitOid": commit.id, "files": upload.modes(request.get_json()["files"], commit.files)}

    def _large_batch(self, request: Request, repository: Repository) -> dict:
        return upload.batch(request.get_json(force=True), self.blobs, f"{request.host_url}api/lfs", self.part_size)

    def _put_large(self, request: Request, oid: str) -> dict:
        self.blobs.put(request.stream, oid)
        return {}

    def _put_part(self, request: Request, oid: str, number: int) -> Response:
        return Response(headers={"ETag": f'"{self.blobs.put_part(oid, number, request.stream)}"'})

    def _complete_large(self, request: Request, oid: str) -> dict:
        self.blobs.join_parts(oid, [part["partNumber"] for part in request.get_json(force=True)["parts"]])
        return {}

    def _verify_large(self, request: Request, oid: str) -> dict:
        source = self.blobs.path(oid)
        if source is None or source.stat().st_size != request.get_json()["size"]:
            raise Refused(422, f"the large file {oid} did not arrive whole")
        return {}

    def _commit(self, request: Request, repository: Repository, revision: str) -> dict:
        if "create_pr" in request.args:
            raise Refused(400, "the Hub here has no pull requests; commit to a branch")
        header, *operations = [json.loads(line) for line in request.get_data().splitlines() if line]
        header = header["value"]
        with self.store.changing(repository) as repository:
            parent = self.store.head(repository, revision)
            if header.get("parentCommit") not in (None, parent.id):
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
            files = upload.apply(operations, parent.files, self.blobs)
            oid = self.store.commit(repository, revision, files, header["summary"], header.get("description", ""))
        return {"success": True, "commitOid": oid, "commitUrl": f"{request.host_url}{repository.page}/commit/{oid}"}

    # Tags and branches

    def _add_tag(self, request: Request, repository: Repository, revision: str) -> dict:
        return self._add(repository, "tags", request.get_json()["tag"], revision)

    def _add_branch(self, request: Request, repository: Repository, revision: str) -> dict:
        return self._add(repository, "branches", revision, request.get_json().get("startingPoint", "main"))

    def _remove_tag(self, request: Request, repository: Repository, revision: str) -> dict:
        return self._remove(repository, "tags", revision)

    def _remove_branch(self, request: Request, repository: Repository, revision: str) -> dict:
        if revision == "main":
            raise Refused(403, "Forbidden: the branch main stays")
        return self._remove(repository, "branches", revision)

    def _add(self, repository: Repository, kind: str, name: str, revision: str) -> dict:
        with self.store.changing(repository) as repository:
            references = getattr(repository, kind)
            if name in references:
                raise Refused(409, f"{name} is there already")
            references[name] = self.store.read(repository, revision).id
        return {}

    def _remove(self, repository: Repository, kind: str, name: str) -> dict:
        with self.store.changing(repository) as repository:
            if getattr(repository, kind).pop(name, None) is None:
                raise Refused(404, f"{name} is not there", "RevisionNotFound")
        return {}

    # Pages for a browser

    def _show_index(self, request: Request) -> Response:
        return Response(page.index(self.store.all()), mimetype="text/html")

    def _show_repository(self, request: Request, repository: Repository, revision: str = "main") -> Response:
        commit = self.store.read(repository, revision)
        shown = page.repository(repository, commit, self.store.history(repository, revision), self._readme(commit))
        return Response(shown, mimetype="text/html")


def _is_true(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true")


def _json(content, status: int = 200) -> Response:
    return Response(json.dumps(content), status, mimetype="application/json")


def _refusal(refused: Refused) -> Response:
    """The sentence and the word by which a client knows the case, both in headers, as HEAD has no body."""
    answer = _json({"error": refused.message}, refused.status)
    answer.headers["X-Error-Message"] = " ".join(refused.message.split()).encode("ascii", "replace").decode()
    if refused.code:
        answer.headers["X-Error-Code"] = refused.code
    if refused.commit:
        answer.headers["X-Repo-Commit"] = refused.commit
    return answer
