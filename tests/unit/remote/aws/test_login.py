"""Credentials of `aws login`: botocore reads and renews them by awscrt; each verb works with them, or says what would help.

The sign-in service is a server of this test's own, held to botocore's model of it (CreateOAuth2Token): nothing emulates it.
"""

import ast
import base64
import hashlib
import importlib.metadata
import json
import os
import re
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import botocore.credentials
import pytest
from botocore.exceptions import LoginInsufficientPermissions, MissingDependencyException
from conftest import ROOT
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from invoke import Config, Context, Exit
from packaging.requirements import Requirement
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

import tasks
from conf import cli
from conf.finding import BROKEN, OK
from conf.problem import Problem
from conf.text.quoting import quoted
from remote.aws import session as account
from remote.doctor import login

SESSION = "arn:aws:iam::123456789012:user/me"
LARGEST = 100 * 2**20  # bytes of all that a laptop installs


class SignIn:
    """The sign-in service: gives new keys for a refresh token to who proves that he holds the login's key, or refuses."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, issued: str):
        self.key, self.issued, self.refusal, self.asked = key, issued, "", 0
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def answer(self, environ, start_response):
        request, self.asked = Request(environ), self.asked + 1
        asked = request.get_json(force=True)
        assert (request.method, request.path, asked["grantType"]) == ("POST", "/v1/token", "refresh_token")
        head, body, signature = request.headers["DPoP"].split(".")
        raw = base64.urlsafe_b64decode(signature + "==")
        whole = utils.encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
        self.key.public_key().verify(whole, f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
        if self.refusal:
            refused = json.dumps({"error": self.refusal, "message": "no"})
            return Response(refused, 403, headers={"x-amzn-ErrorType": "AccessDeniedException"})(environ, start_response)
        keys = {"accessKeyId": self.issued, "secretAccessKey": self.issued, "sessionToken": "new"}
        content = {"accessToken": keys, "tokenType": "aws_sigv4", "expiresIn": 900, "refreshToken": "next"}
        return Response(json.dumps(content), content_type="application/json")(environ, start_response)


@pytest.fixture
def logged_in(aws, monkeypatch, tmp_path):
    """The laptop after `aws login --profile mine`, and nothing else that could give it credentials; `minutes` may be in the past."""
    key = ec.generate_private_key(ec.SECP256R1())
    kind = serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()).decode()
    signin = SignIn(key, os.environ["AWS_ACCESS_KEY_ID"])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").write_text(f"[profile mine]\nregion = us-east-1\nlogin_session = {SESSION}\n")
    environment = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "mine", "AWS_LOGIN_CACHE_DIRECTORY": str(tmp_path)}
    for name, value in (environment | {"AWS_ENDPOINT_URL_SIGNIN": signin.address}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    signin.token = tmp_path / f"{hashlib.sha256(SESSION.encode()).hexdigest()}.json"

    def make(minutes: float, key_id: str = signin.issued) -> None:
        ends = (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys = {"accessKeyId": key_id, "secretAccessKey": key_id, "sessionToken": "t", "accountId": "123456789012", "expiresAt": ends}
        about = {"clientId": "arn:aws:signin:::devtools/same-device", "refreshToken": "first", "dpopKey": pem}
        signin.token.write_text(json.dumps({"accessToken": keys, "tokenType": "aws_sigv4", **about}))

    signin.log_in = make
    yield signin
    signin.server.shutdown()


def findings(aws) -> dict:
    checked = login.check_login("us-east-1", account.Aws(aws.cloud).client)
    return {one.check: one for one in checked if one.verdict != OK}


def test_a_login_works_and_its_fifteen_minutes_are_nothing_to_look_at(aws, logged_in):
    logged_in.log_in(minutes=12)
    assert account.Aws(aws.cloud).caller.endswith(":user/moto") and findings(aws) == {}
    assert logged_in.asked == 0


def test_keys_that_have_ended_are_renewed_without_a_word(aws, logged_in):
    logged_in.log_in(minutes=-5, key_id="of an hour ago")
    assert account.Aws(aws.cloud).caller.endswith(":user/moto") and findings(aws) == {}
    assert json.loads(logged_in.token.read_text())["refreshToken"] == "next" and logged_in.asked == 1


@pytest.mark.parametrize("verb", ["doctor", "status", "costs", "policy"])
def test_verbs_work_with_it(aws, logged_in, monkeypatch, verb, capsys):
    logged_in.log_in(minutes=-5)
    monkeypatch.setattr(cli, "connect", lambda *_: None)  # it gives the process keys of the emulation
    monkeypatch.setattr("sys.argv", ["inv", verb, "--", "cloud=twin", f"cloud.state={quoted(aws.cloud.state)}", "experiment=smoke"])
    context = Context(Config(overrides=tasks.namespace.configuration()))
    if verb != "doctor":
        tasks.namespace[verb](context)
        assert capsys.readouterr().out
    else:
        with suppress(Exit):  # this account has no image and no model
            tasks.namespace[verb](context, json=True)
        printed = capsys.readouterr().out
        assert [one for one in json.loads(printed)["findings"] if one["check"] == "credentials" and one["verdict"] != OK] == []


@pytest.mark.parametrize("refusal", ["TOKEN_EXPIRED", "USER_CREDENTIALS_CHANGED", ""])
def test_a_login_that_has_ended_is_renewed_by_its_own_command(aws, logged_in, refusal):
    if refusal:  # else: never logged in on this machine
        logged_in.log_in(minutes=-5)
        logged_in.refusal = refusal
    by_check = findings(aws)
    assert (by_check["credentials"].verdict, by_check["credentials"].command) == (BROKEN, "`aws login --profile mine`")
    with pytest.raises(Exception) as caught:
        account.fetch(["/fine-tune-slm/s3/bucket"], {"region": "us-east-1"})
    assert account.explain(caught.value).what == "the AWS credentials have expired"


def test_who_may_not_renew_is_told_which_right_he_lacks_and_not_to_log_in_again(aws, logged_in):
    logged_in.log_in(minutes=-5)
    logged_in.refusal = "INSUFFICIENT_PERMISSIONS"
    finding = findings(aws)["credentials"]
    assert "signin:CreateOAuth2Token" in finding.command and "`aws login" not in finding.command
    assert isinstance(account.explain(LoginInsufficientPermissions()), Problem)


def test_without_the_package_that_reads_it_the_package_is_named_and_not_the_login(aws, logged_in, monkeypatch):
    """aws-cli issue 9949: `aws login` does not help here, however often."""
    logged_in.log_in(minutes=12)
    monkeypatch.setattr(botocore.credentials, "EC", None)  # as botocore.compat has it where awscrt is missing
    finding = findings(aws)["credentials"]
    assert finding.command == "`pip install -r requirements.txt`" and "botocore[crt]" in finding.what
    with pytest.raises(MissingDependencyException) as caught:
        account.Aws(aws.cloud).client("s3").list_buckets()
    assert account.explain(caught.value).hint == "`pip install -r requirements.txt`"


def test_every_client_is_made_by_the_session_that_knows_of_profiles():
    made = {}
    for path in [*(ROOT / "remote").rglob("*.py"), ROOT / "tasks.py"]:
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = [one.attr for one in calls if isinstance(one, ast.Attribute) and ast.unparse(one.value) == "boto3"]
        made |= {path.name: set(names)} if names else {}
    assert made == {"session.py": {"client", "Session"}, "stack.py": {"client"}, "login.py": {"Session"}}


def test_what_a_laptop_installs_has_that_package_and_at_most_a_hundred_megabytes():
    words = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in words if line and not line.startswith("#")]
    packages: dict[str, set[str]] = {}
    for one in wanted:
        gather(one, packages)
    assert {"awscrt", "boto3", "hydra-core", "tokenizers"} <= set(packages) and "torch" not in packages
    sizes = {name: sum(file.size or 0 for file in importlib.metadata.files(name)) for name in packages}
    assert sum(sizes.values()) < LARGEST, sorted(sizes.items(), key=lambda each: -each[1])[:8]


def gather(wanted: Requirement, packages: dict[str, set[str]]) -> None:
    """A package, and all that it requires with these extras."""
    name, extras = re.sub(r"[-_.]+", "-", wanted.name).lower(), {"", *wanted.extras}
    if extras <= packages.get(name, set()):
        return
    packages.setdefault(name, set()).update(extras)
    for line in importlib.metadata.requires(name) or []:
        one = Requirement(line)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras):
            gather(one, packages)
