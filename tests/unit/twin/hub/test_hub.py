"""The Hub twin against the unmodified `huggingface_hub`: every call goes over HTTP to a real server."""

import hashlib
import os
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from werkzeug.serving import make_server

from twin.hub.access import Token
from twin.hub.app import Hub

NAME = "local-user/adapter"


@contextmanager
def served(root: Path, **settings):
    """The address of a Hub that runs until the block ends."""
    hub = Hub(root, "hf_writer", settings.pop("models", {}), read_token="hf_reader", **settings)
    server = make_server("127.0.0.1", 0, hub, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def url(tmp_path):
    with served(tmp_path / "hub", part_size=100_000) as address:
        yield address


@pytest.fixture
def api(url):
    return HfApi(endpoint=url, token="hf_writer")


@pytest.fixture
def folder(tmp_path):
    """An adapter's files: two small texts, one large file that goes up in one piece and one in several parts."""
    folder = tmp_path / "adapter"
    (folder / "notes").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [small]\n---\n# Größe <b>\n", encoding="utf-8")
    (folder / "notes" / "log.txt").write_text("one\n")
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(50_000))
    (folder / "optimizer.bin").write_bytes(os.urandom(250_001))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if ".cache" not in path.parts}


def test_a_folder_comes_back_byte_for_byte(api, folder, tmp_path):
    api.create_repo(NAME, private=True)
    commit = api.upload_folder(repo_id=NAME, folder_path=folder)
    api.snapshot_download(NAME, local_dir=tmp_path / "back")
    back = contents(tmp_path / "back")
    assert back.pop(".gitattributes")
    assert back == contents(folder)
    assert len(commit.oid) == 40 and api.model_info(NAME).sha == commit.oid
    assert commit.commit_url.endswith(f"/{NAME}/commit/{commit.oid}")


def test_says_of_large_files_what_their_content_hashes_to(api, folder):
    api.create_repo(NAME)
    api.upload_folder(repo_id=NAME, folder_path=folder)
    for path in ("adapter_model.safetensors", "optimizer.bin"):
        [info] = api.get_paths_info(NAME, [path, "missing"])
        assert info.lfs.sha256 == hashlib.sha256((folder / path).read_bytes()).hexdigest()
        assert info.size == info.lfs.size == (folder / path).stat().st_size
    siblings = {one.rfilename: one for one in api.model_info(NAME, files_metadata=True).siblings}
    assert siblings["README.md"].lfs is None and siblings["optimizer.bin"].lfs.sha256 == info.lfs.sha256
    assert api.model_info(NAME).card_data.license == "mit"


def test_lists_files_and_folders(api, folder):
    api.create_repo(NAME)
    api.upload_folder(repo_id=NAME, folder_path=folder)
    assert set(api.list_repo_files(NAME)) == {".gitattributes", *contents(folder)}
    top = {entry.path for entry in api.list_repo_tree(NAME)}
    assert "notes" in top and "notes/log.txt" not in top
    assert [entry.path for entry in api.list_repo_tree(NAME, "notes", expand=True)] == ["notes/log.txt"]
    assert api.file_exists(NAME, "notes/log.txt") and not api.file_exists(NAME, "notes/none.txt")
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(NAME, "nowhere"))


def test_the_same_upload_again_makes_no_commit(api, folder):
    api.create_repo(NAME)
    first = api.upload_folder(repo_id=NAME, folder_path=folder)
    assert api.upload_folder(repo_id=NAME, folder_path=folder).oid == first.oid
    assert [one.title for one in api.list_repo_commits(NAME)] == ["Upload folder using huggingface_hub", "initial commit"]


def test_old_commits_stay_as_they_were(api, folder):
    api.create_repo(NAME)
    first = api.upload_folder(repo_id=NAME, folder_path=folder)
    operations = [CommitOperationAdd("new.txt", b"new"), CommitOperationDelete("optimizer.bin"), CommitOperationDelete("notes/")]
    api.create_commit(NAME, operations, commit_message="tidy", parent_commit=first.oid)
    assert set(api.list_repo_files(NAME)) == {".gitattributes", "README.md", "adapter_model.safetensors", "new.txt"}
    assert set(api.list_repo_files(NAME, revision=first.oid)) == {".gitattributes", *contents(folder)}
    [readme] = api.get_paths_info(NAME, ["README.md"], expand=True)
    assert readme.last_commit.oid == first.oid
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        api.create_commit(NAME, [CommitOperationAdd("late.txt", b"late")], commit_message="late", parent_commit=first.oid)


def test_tags_and_branches_name_commits(api):
    api.create_repo(NAME)
    commit = api.upload_file(repo_id=NAME, path_in_repo="a.txt", path_or_fileobj=b"one")
    api.create_tag(NAME, tag="run-1")
    api.create_branch(NAME, branch="trial")
    api.upload_file(repo_id=NAME, path_in_repo="a.txt", path_or_fileobj=b"two", revision="trial")
    assert Path(api.hf_hub_download(NAME, "a.txt", revision="run-1")).read_text() == "one"
    assert Path(api.hf_hub_download(NAME, "a.txt", revision="trial")).read_text() == "two"
    assert {tag.name: tag.target_commit for tag in api.list_repo_refs(NAME).tags} == {"run-1": commit.oid}
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(NAME, tag="run-1")
    api.create_tag(NAME, tag="run-1", exist_ok=True)
    api.delete_tag(NAME, tag="run-1")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(NAME, revision="run-1")


def test_a_large_file_with_other_bytes_than_announced_is_refused(api, url):
    announced = hashlib.sha256(b"what was announced").hexdigest()
    request = urllib.request.Request(f"{url}/api/lfs/{announced}", data=b"what arrived", method="PUT")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)
    api.create_repo(NAME)
    operation = CommitOperationAdd("a.safetensors", b"what arrived")
    operation.upload_info.sha256 = bytes.fromhex(announced)
    with pytest.raises(RuntimeError, match=r"Error while uploading 'a\.safetensors'") as error:
        api.create_commit(NAME, [operation], commit_message="other bytes")
    assert "was announced" in str(error.value.__cause__)


def test_a_commit_of_a_large_file_that_never_arrived_is_refused(api):
    api.create_repo(NAME)
    operation = CommitOperationAdd("adapter_model.safetensors", b"\0" * 1000)
    operation._upload_mode, operation._is_uploaded = "lfs", True  # as if its upload had been lost
    with pytest.raises(BadRequestError, match="was never uploaded"):
        api.create_commit(NAME, [operation], commit_message="a lie")
    assert api.list_repo_files(NAME) == [".gitattributes"]


def test_a_path_that_leaves_the_repository_is_refused(api, url):
    api.create_repo(NAME)
    lines = '{"key":"header","value":{"summary":"s"}}\n{"key":"file","value":{"path":"../x","content":"eA=="}}'
    headers = {"Authorization": "Bearer hf_writer"}
    request = urllib.request.Request(f"{url}/api/models/{NAME}/commit/main", data=lines.encode(), headers=headers)
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)


def test_a_private_repository_is_invisible_without_the_token(api, url):
    api.create_repo(NAME, private=True)
    api.upload_file(repo_id=NAME, path_in_repo="a.txt", path_or_fileobj=b"secret")
    stranger = HfApi(endpoint=url, token=False)
    for call in (stranger.model_info, stranger.list_repo_files, stranger.auth_check, lambda name: stranger.hf_hub_download(name, "a.txt")):
        with pytest.raises(RepositoryNotFoundError):
            call(NAME)
    api.update_repo_settings(NAME, private=False)
    assert "a.txt" in stranger.list_repo_files(NAME)


def test_a_wrong_token_is_told_so_even_where_none_is_needed(api, url):
    api.create_repo(NAME)
    assert HfApi(endpoint=url, token=False).model_info(NAME)
    stranger = HfApi(endpoint=url, token="hf_wrong")
    with pytest.raises(HfHubHTTPError, match="Invalid user token") as error:
        stranger.whoami()
    assert error.value.response.status_code == 401
    for call in (stranger.model_info, stranger.create_repo):
        with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header"):
            call(NAME)


def test_a_token_that_may_only_read_can_read_and_nothing_else(api, url):
    api.create_repo(NAME, private=True)
    api.upload_file(repo_id=NAME, path_in_repo="a.txt", path_or_fileobj=b"one")
    reader = HfApi(endpoint=url, token="hf_reader")
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"
    assert Path(reader.hf_hub_download(NAME, "a.txt")).read_text() == "one"
    for forbidden in (
        lambda: reader.create_repo("local-user/other"),
        lambda: reader.upload_file(repo_id=NAME, path_in_repo="a.txt", path_or_fileobj=b"two"),
        lambda: reader.create_tag(NAME, tag="t"),
        lambda: reader.delete_repo(NAME),
        lambda: reader.auth_check(NAME, write=True),
    ):
        with pytest.raises(HfHubHTTPError, match="403"):
            forbidden()


def test_a_fine_grained_token_may_what_it_lists_and_says_so(tmp_path):
    tokens = {
        "hf_fine": Token("fineGrained", {"team": ["repo.content.read", "repo.write"]}, gated=False),
        "hf_old": Token("write", expired=True),
    }
    with served(tmp_path / "hub", tokens=tokens, organisations={"team": "write"}) as url:
        fine = HfApi(endpoint=url, token="hf_fine")
        account = fine.whoami()
        assert account["orgs"][0]["name"] == "team" and account["orgs"][0]["roleInOrg"] == "write"
        token = account["auth"]["accessToken"]
        (scope,) = token["fineGrained"]["scoped"]
        assert (token["role"], token["fineGrained"]["canReadGatedRepos"]) == ("fineGrained", False)
        assert (scope["entity"]["type"], scope["entity"]["name"], scope["permissions"]) == (
            "org",
            "team",
            ["repo.content.read", "repo.write"],
        )
        fine.create_repo("team/adapter", private=True)
        assert fine.auth_check("team/adapter", write=True) is None
        HfApi(endpoint=url, token="hf_writer").create_repo(NAME, private=True)
        with pytest.raises(HfHubHTTPError, match="403"):
            fine.create_repo("local-user/other")
        with pytest.raises(RepositoryNotFoundError):
            fine.model_info(NAME)
        with pytest.raises(HfHubHTTPError) as error:
            HfApi(endpoint=url, token="hf_old").whoami()
        assert error.value.response.status_code == 401


def test_nobody_writes_to_the_repositories_of_others(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with served(tmp_path / "hub", models={"maker/model": model, "local-user/shown": model}) as url:
        api = HfApi(endpoint=url, token="hf_writer")
        for call in (lambda: api.create_repo("maker/mine"), lambda: api.create_tag("maker/model", tag="t")):
            with pytest.raises(HfHubHTTPError, match="403"):
                call()
        for name in ("maker/model", "local-user/shown"):
            with pytest.raises(HfHubHTTPError, match="403"):
                api.upload_file(repo_id=name, path_in_repo="a.txt", path_or_fileobj=b"x")
        assert HfApi(endpoint=url, token=False).list_repo_files("maker/model") == ["config.json"]


def test_a_gated_model_can_be_seen_and_not_fetched(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with served(tmp_path / "hub", models={"maker/model": model}, gated={"maker/model"}) as url:
        for token in ("hf_writer", False):
            api = HfApi(endpoint=url, token=token)
            assert api.model_info("maker/model").gated == "manual"
            with pytest.raises(GatedRepoError):
                api.hf_hub_download("maker/model", "config.json")
            with pytest.raises(GatedRepoError):
                api.auth_check("maker/model")


def test_a_restart_keeps_everything(tmp_path, folder):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with served(tmp_path / "hub", models={"maker/model": model}) as url:
        api = HfApi(endpoint=url, token="hf_writer")
        api.create_repo(NAME, private=True)
        api.upload_folder(repo_id=NAME, folder_path=folder)
        api.create_tag(NAME, tag="run-1")
        before = api.model_info(NAME, files_metadata=True), api.list_repo_refs(NAME), api.model_info("maker/model").sha
    with served(tmp_path / "hub", models={"maker/model": model}) as url:
        api = HfApi(endpoint=url, token="hf_writer")
        assert (api.model_info(NAME, files_metadata=True), api.list_repo_refs(NAME), api.model_info("maker/model").sha) == before
        api.snapshot_download(NAME, revision="run-1", local_dir=tmp_path / "back")
        assert contents(tmp_path / "back").items() >= contents(folder).items()
    with served(tmp_path / "hub") as url, pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=url, token="hf_writer").model_info("maker/model")


def test_a_served_model_is_not_copied_and_its_commit_follows_its_files(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(os.urandom(300_000))
    revisions = []
    for change in (None, "config.json"):
        if change:
            (model / change).write_text("{}")
        with served(tmp_path / "hub", models={"maker/model": model}) as url:
            revisions.append(HfApi(endpoint=url).model_info("maker/model").sha)
    assert revisions[0] != revisions[1]
    assert sum(path.stat().st_size for path in (tmp_path / "hub").rglob("*") if path.is_file()) < 10_000


def test_a_folder_that_is_not_there_is_no_model(tmp_path):
    with pytest.raises(ValueError, match="cannot be shown as maker/model"):
        Hub(tmp_path / "hub", "hf_writer", {"maker/model": tmp_path / "nowhere"})


def test_parts_that_did_not_all_arrive_make_no_file(api, url):
    oid = hashlib.sha256(b"ab").hexdigest()
    urllib.request.urlopen(urllib.request.Request(f"{url}/api/lfs/{oid}/part/1", data=b"a", method="PUT"))
    finish = urllib.request.Request(f"{url}/api/lfs/{oid}/complete", data=b'{"parts": [{"partNumber": 1}, {"partNumber": 2}]}')
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(finish)


def test_an_interrupted_download_goes_on_where_it_stopped(api, url, folder):
    api.create_repo(NAME)
    api.upload_folder(repo_id=NAME, folder_path=folder)
    whole = (folder / "optimizer.bin").read_bytes()
    request = urllib.request.Request(f"{url}/{NAME}/resolve/main/optimizer.bin", headers={"Range": "bytes=1000-"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 206 and answer.read() == whole[1000:]
        assert answer.headers["Content-Range"] == f"bytes 1000-{len(whole) - 1}/{len(whole)}"


def test_a_card_with_unreadable_metadata_is_refused(api):
    api.create_repo(NAME)
    for head in ("license: [mit", "model-index:\n- name: m\n  results:\n  - task: {}", "tags: {a: b}"):
        with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
            api.upload_file(repo_id=NAME, path_in_repo="README.md", path_or_fileobj=f"---\n{head}\n---\n# m\n".encode())
    assert api.list_repo_files(NAME) == [".gitattributes"]


def test_create_and_delete_are_said_to_be_repeated(api, url):
    assert api.create_repo("adapter") == f"{url}/{NAME}"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(NAME)
    assert api.create_repo(NAME, exist_ok=True).repo_id == NAME
    api.delete_repo(NAME)
    api.delete_repo(NAME, missing_ok=True)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(NAME)


def test_the_printed_address_opens_in_a_browser(api, url, folder):
    api.create_repo(NAME, private=True)
    commit = api.upload_folder(repo_id=NAME, folder_path=folder)
    api.create_tag(NAME, tag="run-1")
    digest = hashlib.sha256((folder / "optimizer.bin").read_bytes()).hexdigest()
    for address in (f"{url}/{NAME}", commit.commit_url, f"{url}/{NAME}/tree/run-1"):
        with urllib.request.urlopen(address) as answer:
            page = answer.read().decode()
            assert answer.headers["Content-Type"].startswith("text/html")
        assert "# Größe &lt;b&gt;" in page and digest in page and "run-1" in page and commit.oid in page
    with urllib.request.urlopen(f"{url}/{NAME}/blob/main/notes/log.txt") as answer:
        assert answer.read() == b"one\n"
    assert NAME in urllib.request.urlopen(url).read().decode()
