"""Watching from afar: the end of a log without all of it, and a wait that a network or a login may interrupt."""

import json

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from remote import follow, runs
from remote.aws import Patience


@pytest.mark.parametrize("cuts", [[0, 500], [0, 3, 4, 200, 201, 480], list(range(0, 500, 7))])
def test_the_tail_is_the_last_lines_wherever_the_chunks_were_cut(aws, store, cuts):
    text = b"".join(b"line %03d\n" % number for number in range(50))
    cuts = [cut for cut in cuts if cut < len(text)] + [len(text)]
    for start, end in zip(cuts, cuts[1:], strict=False):
        store.put(f"runs/t/log/{start:012d}", text[start:end])
    for lines in (1, 2, 49, 50, 500):
        found = b"".join(follow.log(store, "t", follow.tail(store, "t", lines)))
        assert found.splitlines() == text.splitlines()[-lines:]


def test_a_long_wait_goes_on_after_the_network_and_the_login_are_back(aws, store, monkeypatch, capsys):
    store.put("runs/w/state.json", json.dumps({"phase": "done", "since": runs.now(), "heartbeat": runs.now()}).encode())
    store.put("runs/w/manifest.json", json.dumps({"seconds": {"train": 1}}).encode())
    troubles = [
        EndpointConnectionError(endpoint_url="https://s3"),
        ClientError({"Error": {"Code": "ExpiredToken", "Message": "expired"}}, "GetObject"),
        ClientError({"Error": {"Code": "ExpiredToken", "Message": "expired"}}, "GetObject"),
    ]
    usual = runs.state

    def state(store, run_id):
        if troubles:
            raise troubles.pop(0)
        return usual(store, run_id)

    monkeypatch.setattr(runs, "state", state)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert follow.attach(aws, "w", "box")["run_id"] == "w"
    said = capsys.readouterr().err
    assert said.count("AWS does not answer. w goes on") == 1
    assert said.count("credentials have expired; log in from another shell") == 1


def test_what_waiting_does_not_mend_ends_the_wait(aws):
    with pytest.raises(ClientError, match="AccessDenied"):
        Patience(aws, "it goes on").bear(ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetObject"))
