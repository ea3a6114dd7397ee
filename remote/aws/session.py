"""One account: its clients, who is asking, and what its errors mean in words."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlparse

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from conf.text import secret
from remote.aws.eventual_consistency import RecentIds

PROPAGATION = 120  # seconds, as others wait (terraform-provider-aws, iamPropagationTimeout)
MAX_CONNECTIONS = 20  # requests of one client, as many as `inv status` has
LOGIN = "`aws login`, `aws sso login` or `aws configure`, then try again"
CREDENTIAL_ERRORS = {
    "ExpiredToken": ("the AWS credentials have expired", LOGIN),
    "ExpiredTokenException": ("the AWS credentials have expired", LOGIN),
    "RequestExpired": ("the AWS credentials have expired", LOGIN),
    "InvalidClientTokenId": ("AWS does not know these credentials", LOGIN),
    "UnrecognizedClientException": ("AWS does not know these credentials", LOGIN),
    "AuthFailure": ("AWS does not accept these credentials", LOGIN),
}
# Session names that programs make up: `botocore-session-1764400000`, other SDKs' alike. Identity Center's are people's names.
PROGRAM_SESSION = re.compile(r"(.*[^0-9])?[0-9]{9,}")
QUOTED = re.compile(r"`[^`]*`")
REGIONAL = re.compile(r"\baws (?!login|sso|configure|sts)[a-z0-9-]+ [a-z][a-z0-9-]+")  # service and operation
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
RETRIES: Any = {"mode": "adaptive", "max_attempts": 8}
THROTTLED = ("Throttling", "ThrottlingException", "RequestLimitExceeded", "SlowDown", "TooManyRequestsException", "RequestTimeout")


Answer = TypeVar("Answer")


def with_region(text: str, name: str) -> str:
    """The text with `--region` in its AWS CLI commands: the CLI's own default may be another region."""

    def placed(quoted: re.Match) -> str:
        return quoted[0] if "--region" in quoted[0] else REGIONAL.sub(rf"\g<0> --region {name}", quoted[0])

    return QUOTED.sub(placed, text)


def is_access_denied(error: Exception) -> bool:
    """Whether AWS refuses it for want of a right."""
    return getattr(error, "response", {}).get("Error", {}).get("Code", "") in DENIED


def retry_until_visible(ask: Callable[[], Answer], unseen: str, what: str) -> Answer:
    """The answer of `ask`, once the service sees `what`: it does not see new IAM objects at once, and its message then contains `unseen`.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency
    """
    from botocore.exceptions import ClientError

    deadline, announced = time.monotonic() + PROPAGATION, False
    while True:
        try:
            return ask()
        except ClientError as error:
            if unseen not in error.response["Error"].get("Message", "") or time.monotonic() > deadline:
                raise
        if not announced:
            screen.note(f"  AWS does not see {what} yet: trying again for two minutes")
        announced = True
        time.sleep(1)


def pauses(seconds: float, first: float = 0.1, longest: float = 5) -> Iterator[None]:
    """Once and again, after pauses that grow, until so many seconds are over."""
    deadline, pause = time.monotonic() + seconds, first
    yield
    while time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 1.5, longest)
        yield


class Aws:
    """Clients for the services of `cloud`, made when first asked for. boto3 is imported then, not before."""

    def __init__(self, cloud: schema.Cloud):
        self.cloud = cloud
        self._clients: dict[tuple[str, bool], Any] = {}
        self._lock = threading.RLock()  # boto3's default session makes one client at a time
        self._caller = ""
        self._fresh = RecentIds()
        self._identity = threading.Lock()  # asked for once, though several threads want it

    def client(self, service: str, once: bool = False):
        """A client of the service; with `once` it never sends a request twice by itself."""
        with self._lock:
            if (service, once) not in self._clients:
                self._clients[service, once] = self._make_client(service, once)
            return self._clients[service, once]

    def _make_client(self, service: str, once: bool):
        import boto3
        from botocore.config import Config

        # Prices are served from a few regions only, whatever the box's own is.
        region = "us-east-1" if service == "pricing" else self.cloud.region
        retries = {"mode": "standard", "total_max_attempts": 1} if once else RETRIES
        config = Config(retries=retries, connect_timeout=5, read_timeout=60, max_pool_connections=MAX_CONNECTIONS)
        client = boto3.client(service, region_name=region, config=config)
        loopback = urlparse(client.meta.endpoint_url).hostname in ("127.0.0.1", "::1", "localhost")
        if loopback and not self.cloud.loopback:
            raise Problem(f"cloud={self.cloud.name} would talk to {client.meta.endpoint_url}", "unset AWS_ENDPOINT_URL")
        if self.cloud.loopback and not loopback:
            raise Problem(f"cloud={self.cloud.name} would talk to {client.meta.endpoint_url}", "unset the AWS_ENDPOINT_URL_... variables")
        if service == "ec2":
            self._fresh.watch(client)
        return client

    def renew(self) -> None:
        """Forget the credentials: those of the next call are read anew, so that a login in another shell is enough."""
        import boto3

        with self._lock:
            boto3.DEFAULT_SESSION = None
            self._clients = {}

    @property
    def caller(self) -> str:
        """The caller's ARN, without a session's changing name, so that tomorrow's login is the same owner."""
        arn = self._arn()
        return arn.rsplit("/", 1)[0] if ":assumed-role/" in arn else arn

    @property
    def owner(self) -> str:
        """The ARN that runs, boxes and volumes are made under: people who share a role differ by the session's name, unless a program
        numbers its sessions."""
        arn = self._arn()
        return self.caller if ":assumed-role/" in arn and PROGRAM_SESSION.fullmatch(arn.rsplit("/", 1)[1]) else arn

    def is_mine(self, tagged_owner: str | None) -> bool:
        """Whether a box or a volume with this owner is the caller's. Those of 0.1.0 have the ARN of a role, whoever made them with it."""
        return tagged_owner in (self.owner, self.caller)

    def _arn(self) -> str:
        with self._identity:
            self._caller = self._caller or self.client("sts").get_caller_identity()["Arn"]
            return self._caller

    def secret(self, name: str) -> str:
        """The value of a secret, for immediate use: it is never kept, printed or passed on."""
        answer = self.client("secretsmanager").get_secret_value(SecretId=name)
        return secret.value(answer["SecretString"])


def region(cloud: dict) -> str:
    """The region before Parameter Store is read: from the settings, else from the environment as the AWS CLI reads it."""
    import boto3

    return cloud.get("region") or os.environ.get("AWS_REGION") or boto3.Session().region_name or "us-east-1"


def early_client(service: str, cloud: dict):
    """A client for use before there are settings. It retries as all others do: every verb begins with its calls."""
    import boto3
    from botocore.config import Config

    return boto3.client(service, region_name=region(cloud), config=Config(retries=RETRIES))


def fetch(names: list[str], cloud: dict) -> dict[str, str]:
    """Values of Parameter Store for those of `names` that exist, in calls of ten; `cloud` may say in which region."""
    client = early_client("ssm", cloud)
    values: dict[str, str] = {}
    requested = {parameter_name(name, cloud.get("stack")): name for name in names}
    for start in range(0, len(names), 10):
        answer = client.get_parameters(Names=list(requested)[start : start + 10], WithDecryption=True)
        values |= {requested[parameter["Name"]]: parameter["Value"] for parameter in answer["Parameters"]}
    return values


def parameter_name(name: str, stack: str | None) -> str:
    """A name of ours in Parameter Store, as a stack of this name has it."""
    return name.replace(f"/{schema.TOOL}/", f"/{schema.TOOL}-{stack}/", 1) if stack else name


def transient_reason(error: Exception) -> str | None:
    """What to say of an error that waiting or a login fixes; None for any other."""
    from botocore import exceptions

    cut = exceptions.HTTPClientError | exceptions.EndpointConnectionError | exceptions.ConnectionError | exceptions.IncompleteReadError
    if isinstance(error, cut):
        return "AWS does not answer"
    if isinstance(error, exceptions.ClientError):
        code, status = error.response["Error"].get("Code", "?"), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status >= 500 or code in THROTTLED:
            return f"AWS has an internal error or throttles the account ({code})"
    meaning = explain(error)
    if meaning is None or meaning.what != CREDENTIAL_ERRORS["ExpiredToken"][0]:
        return None
    return f"{meaning.what}; log in from another shell"


class Retry:
    """Waits out errors that time or a login fixes: says so once, and reads the credentials again."""

    def __init__(self, aws: "Aws", goes_on: str):
        self.aws = aws
        self.goes_on = goes_on  # what is not harmed meanwhile
        self.announced = ""

    def wait(self, error: Exception, pause: float = 5) -> None:
        """Pause before the next attempt; raise the error if waiting does not help."""
        words = transient_reason(error)
        if words is None:
            raise error
        if words != self.announced:
            screen.note(f"{words}. {self.goes_on}; trying again every {pause:.0f} s")
        self.announced = words
        time.sleep(pause)
        self.aws.renew()


def explain(error: Exception) -> Problem | None:
    """A botocore error as a Problem, or None when it is something else."""
    from botocore import exceptions, parsers

    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError | exceptions.ProfileNotFound):
        return Problem(f"no usable AWS credentials: {error}", LOGIN, reason="refused")
    if isinstance(error, exceptions.MissingDependencyException):  # of `aws login`, which botocore reads by awscrt only
        return Problem(f"a package of requirements.txt is not installed: {error}", "`pip install -r requirements.txt`", reason="refused")
    if isinstance(error, exceptions.LoginInsufficientPermissions):
        hint = "let it call signin:CreateOAuth2Token (AWS's policy SignInLocalDevelopmentAccess does), or log in by SSO or keys"
        return Problem("this login may not renew its own credentials", hint, reason="refused")
    lapsed = exceptions.TokenRetrievalError | exceptions.UnauthorizedSSOTokenError | exceptions.CredentialRetrievalError
    if isinstance(error, lapsed | exceptions.LoginError):
        return Problem(*CREDENTIAL_ERRORS["ExpiredToken"], reason="refused")
    if isinstance(error, exceptions.HTTPClientError | exceptions.EndpointConnectionError):
        return Problem(f"AWS does not answer: {error}", "check the network, then run the same command again", reason="unreachable")
    if isinstance(error, parsers.ResponseParserError):
        return Problem(
            "the endpoint does not answer as AWS does", "is a proxy in between? See AWS_ENDPOINT_URL and HTTPS_PROXY", reason="unreachable"
        )
    if isinstance(error, exceptions.ClientError):
        return _refusal(error)
    if isinstance(error, exceptions.BotoCoreError):
        return Problem(f"AWS call failed: {error}", "`aws sts get-caller-identity` shows whether the account answers", reason="refused")
    return None


def _refusal(error) -> Problem:
    code, message = error.response["Error"].get("Code", "?"), error.response["Error"].get("Message", "")
    if code in CREDENTIAL_ERRORS:
        return Problem(*CREDENTIAL_ERRORS[code], reason="refused")
    hint = "`aws sts get-caller-identity` shows who asked; the account or its policy must change"
    if code in DENIED:
        hint = "`inv doctor` names the missing policy line; `inv policy` prints it, `inv policy --who setup` what init and destroy need"
    if code in THROTTLED:
        hint = "run the same command again in a minute: AWS throttles the account, which sends too many requests at once"
    if code == "NoSuchBucket":
        hint = "set `cloud.bucket` to a bucket of yours: `aws s3 mb s3://NAME`"
    return Problem(f"AWS refused {error.operation_name}: {message} ({code})", hint, reason="refused")
