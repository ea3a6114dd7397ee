"""What the Hub's errors mean: a sentence and a hint for each."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from conf.problem import Problem
from conf.process import proxy

RULE = "OWNER/NAME has at most 96 letters, digits, '-', '_' and '.', no '--' or '..', none of '-' and '.' at its ends, and no '.git'"
HUB = "https://huggingface.co"
NEW_TOKEN = (
    "make a token at https://huggingface.co/settings/tokens, then put it in place: `inv init --token FILE`, without AWS `hf auth login`"
)


@contextmanager
def explained(repository: str, endpoint: str | None, section: str = "") -> Iterator[None]:
    """Run calls to the Hub about `repository`; its errors become Problems. `section` is part of its page's address."""
    address = (endpoint or HUB).rstrip("/")
    page = f"{address}/{section}{repository}"
    try:
        yield
    except GatedRepoError as error:
        raise _gated(repository, page, error) from error
    except RevisionNotFoundError as error:
        raise Problem(
            f"{repository} has no such revision", f"see its branches and tags at {page}/tree/main", "model_unavailable"
        ) from error
    except RepositoryNotFoundError as error:
        raise _unknown(repository, address, page) from error
    except HFValidationError as error:
        raise Problem(f"`{repository}` cannot be the name of a repository", RULE) from error
    except HfHubHTTPError as error:
        raise _refused(repository, address, error) from error
    except (httpx2.HTTPError, ConnectionError, LocalEntryNotFoundError) as error:
        raise Problem(
            f"the Hub at {address} did not answer", "check the network, then repeat the command: it goes on where it stopped", "unreachable"
        ) from error
    except (ImportError, ValueError, httpx2.InvalidURL):
        proxy.check_proxies()  # the client's error for an unknown kind of proxy
        raise
    except RuntimeError as error:
        # huggingface_hub hides why an upload failed in the cause of an error that only names the file.
        if not isinstance(error.__cause__, (HfHubHTTPError, httpx2.HTTPError, ConnectionError)):
            raise
        with explained(repository, endpoint, section):
            raise error.__cause__ from None


def _gated(repository: str, page: str, error: GatedRepoError) -> Problem:
    if error.response.status_code == 401:
        return Problem(f"{repository} is gated, and there is no token", f"accept its terms at {page}; {NEW_TOKEN}", "model_unavailable")
    return Problem(f"{repository} is gated and this token's account has no access", f"accept its terms at {page}", "model_unavailable")


def _unknown(repository: str, address: str, page: str) -> Problem:
    hint = f"check the name at {page}; if it is private, the token's account must see it"
    return Problem(f"the Hub at {address} shows this token no repository {repository}", hint, "model_unavailable")


def _refused(repository: str, address: str, error: HfHubHTTPError) -> Problem:
    status = error.response.status_code
    if status == 401:
        return Problem(f"the Hub at {address} does not accept the token (401): it is wrong, revoked or expired", NEW_TOKEN, "refused")
    if status == 403:
        scope = "write access to contents of repositories under your namespace (`repo.write`), or the role `write`"
        return Problem(
            f"the token may not write to {repository} (403)", f"give it {scope}, at https://huggingface.co/settings/tokens", "refused"
        )
    if status == 429 or status >= 500:
        return Problem(
            f"the Hub at {address} answered {status}", "wait a minute, then repeat the command: it goes on where it stopped", "unreachable"
        )
    return Problem(f"the Hub at {address} refused {repository}: {error.server_message or status}", "see the message", "refused")
