"""Session Manager as boto3 and a client on a data channel see it; the rules are those of twin/aws/ssm/SESSIONS.md."""

import json
import re
import socket
import threading
import time
import uuid
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from twin import world
from twin.channel import message, websocket
from twin.channel.mux import Mux
from twin.channel.stream import Stream

pytestmark = pytest.mark.slow


class Client:
    """A client of a session, as little of one as there can be."""

    def __init__(self, answer: dict):
        self.id, self.written, self.kinds, self.ended = answer["SessionId"], b"", [], None
        self.properties, self.mux, self.lock = {}, None, threading.Condition()
        self.stream = Stream(message.INPUT, lambda packed: self.channel.send(packed), self.take)
        self.open(answer)

    def open(self, answer: dict) -> None:
        url = urlsplit(answer["StreamUrl"])
        self.channel = websocket.connect(url.netloc, f"{url.path}?{url.query}", {})
        first = {"MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4()), "TokenValue": answer["TokenValue"]}
        self.channel.send(json.dumps(first | {"ClientId": str(uuid.uuid4())}))
        threading.Thread(target=self.listen, args=(self.channel,), daemon=True).start()

    def listen(self, channel) -> None:
        while True:
            try:
                received = message.checked(channel.receive())
            except websocket.Closed:
                return
            with self.lock:
                self.kinds.append((received.kind, received.payload_type))
                if received.kind == message.CLOSED:
                    self.ended = received.json
                self.lock.notify_all()
            if received.kind != message.CLOSED:
                self.stream.receive(received)

    def take(self, received) -> bool:
        if received.payload_type == message.HANDSHAKE_REQUEST:
            self.request = received.json
            answer = {"ClientVersion": "1.2.707.0", "ProcessedClientActions": [{"ActionType": "SessionType", "ActionStatus": 1}]}
            self.stream.send(json.dumps(answer).encode(), message.HANDSHAKE_RESPONSE)
        elif received.payload_type == message.DATA and self.mux:
            self.mux.feed(received.payload)
        elif received.payload_type == message.DATA:
            with self.lock:
                self.written += received.payload
                self.lock.notify_all()
        return True

    def type(self, text: str) -> None:
        self.stream.send(text.encode())

    def until(self, condition) -> bool:
        with self.lock:
            return self.lock.wait_for(lambda: condition(self), 120)

    def reads(self, pattern: str) -> bool:
        return self.until(lambda client: re.search(pattern.encode(), client.written))


@pytest.fixture(scope="module")
def start(cloud, box, until):
    """Starts a session on the box."""

    def started(document: str = "", target: str = box.instance, **parameters: str) -> dict:
        named = {"DocumentName": document, "Parameters": {name: [value] for name, value in parameters.items()}} if document else {}
        return cloud.ssm.start_session(Target=target, **named)

    def connected() -> bool:
        try:
            cloud.ssm.terminate_session(SessionId=started()["SessionId"])
        except cloud.ssm.exceptions.TargetNotConnected:
            return False
        return True

    until(connected)
    return started


def test_a_shell_answers_on_a_terminal_of_the_clients_size_and_its_end_is_told(start, cloud):
    answer = start()
    assert re.fullmatch(r"[\w.-]+-[0-9a-f]{17}", answer["SessionId"]) and "/v1/data-channel/" in answer["StreamUrl"]
    client = Client(answer)
    client.stream.send(b'{"cols": 71, "rows": 23}', message.SIZE)
    client.type("echo $((6 * 7)); tty; stty size\r")
    assert client.reads(r"\n42\r") and client.reads("/dev/pts/") and client.reads(r"\n23 71\r")
    assert (message.OUTPUT, message.HANDSHAKE_REQUEST) not in client.kinds  # of a shell without encryption an agent asks for none
    client.type("exit\r")
    assert client.until(lambda client: client.ended) and client.ended["SessionId"] == client.id
    history = cloud.ssm.describe_sessions(State="History", Filters=[{"key": "SessionId", "value": client.id}])["Sessions"]
    assert [one["Status"] for one in history] == ["Terminated"] and history[0]["EndDate"] >= history[0]["StartDate"]


def test_one_command_runs_after_a_handshake(start):
    client = Client(start("AWS-StartInteractiveCommand", command="echo on $(tty | cut -c1-8); exit 3"))
    assert client.reads("on /dev/pts") and client.until(lambda client: client.ended)
    assert client.request["RequestedClientActions"][0]["ActionParameters"]["SessionType"] == "InteractiveCommands"
    assert (message.OUTPUT, message.HANDSHAKE_COMPLETE) in client.kinds


def test_a_connection_that_was_lost_is_resumed_and_nothing_is_lost_or_doubled(start, cloud):
    client = Client(start())
    client.type("i=0; while [ $i -lt 400 ]; do i=$((i + 1)); echo number-$i-; sleep 0.01; done; echo all of them\r")
    assert client.reads("number-20-")
    client.channel.cut()
    time.sleep(0.5)
    client.open(cloud.ssm.resume_session(SessionId=client.id))
    assert client.reads("\nall of them")
    numbers = [int(one) for one in re.findall(rb"number-(\d+)-", client.written)]
    assert numbers == list(range(1, 401))
    cloud.ssm.terminate_session(SessionId=client.id)
    assert client.until(lambda client: client.ended)
    assert "TokenValue" not in cloud.ssm.resume_session(SessionId=client.id)


def test_a_session_that_is_terminated_takes_its_processes_with_it(start, cloud, box, until):
    client = Client(start())
    client.type("echo $$ > $BOX_ROOT/root/shell-pid; exec sleep 4711\r")
    path = box.root / "root/shell-pid"
    until(lambda: path.exists() and path.read_text().strip())
    cloud.ssm.terminate_session(SessionId=client.id)
    assert client.until(lambda client: client.ended)
    until(lambda: box.shell(f"kill -0 {path.read_text().strip()}").returncode)


def test_two_sessions_at_once_do_not_mix(start):
    first, second = Client(start()), Client(start())
    first.type("echo $((1 + 1))-first\r")
    second.type("echo $((2 + 2))-second\r")
    assert first.reads("2-first") and second.reads("4-second")
    assert b"second" not in first.written and b"first" not in second.written
    for client in (first, second):
        client.type("exit\r")
        assert client.until(lambda client: client.ended)


def test_connections_to_a_port_of_the_box_cross_beside_each_other(start):
    with socket.create_server(("127.0.0.1", 0)) as far, socket.create_server(("127.0.0.1", 0)) as closed:
        port, nobody = far.getsockname()[1], closed.getsockname()[1]
        closed.close()
        client = Client(start("AWS-StartPortForwardingSession", portNumber=str(port), localPortNumber="0"))
        client.mux = Mux(client.stream.send)
        assert client.until(lambda client: (message.OUTPUT, message.HANDSHAKE_COMPLETE) in client.kinds)
        asked = client.request["RequestedClientActions"][0]["ActionParameters"]
        assert asked == {
            "SessionType": "Port",
            "Properties": {"portNumber": str(port), "type": "LocalPortForwarding", "localPortNumber": "0"},
        }
        pairs = []
        for _ in range(2):
            ours, theirs = socket.socketpair()
            client.mux.open(ours)
            pairs.append((theirs, far.accept()[0]))
        content = bytes(range(256)) * 4000
        for near, other in pairs:
            threading.Thread(target=other.sendall, args=(content,), daemon=True).start()
            near.sendall(b"asked")
            assert other.recv(5) == b"asked"
        for near, other in pairs:
            received = b""
            while len(received) < len(content):
                received += near.recv(65536)
            assert received == content
            other.close()
        client.stream.send(message.TERMINATE_SESSION, message.FLAG)
        assert client.until(lambda client: client.ended)
    silent = Client(start("AWS-StartPortForwardingSession", portNumber=str(nobody), localPortNumber="0"))
    silent.mux = Mux(silent.stream.send)
    assert silent.until(lambda client: (message.OUTPUT, message.HANDSHAKE_COMPLETE) in client.kinds)
    ours, theirs = socket.socketpair()
    silent.mux.open(ours)
    assert theirs.recv(1) == b"" and silent.until(lambda client: (message.OUTPUT, message.FLAG) in client.kinds)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"Target": "i-0123456789abcdef0"}, "TargetNotConnected"),
        ({"DocumentName": "AWS-RunShellScript"}, "InvalidDocument"),
        ({"DocumentName": "AWS-StartPortForwardingSession", "Parameters": {"portNumber": ["70000"]}}, "InvalidParameters"),
        ({"DocumentName": "AWS-StartInteractiveCommand", "Parameters": {"commands": ["ls"]}}, "InvalidParameters"),
    ],
)
def test_refuses_as_the_service_does(start, cloud, box, request_, code):
    with pytest.raises(ClientError) as refused:
        cloud.ssm.start_session(**{"Target": box.instance} | request_)
    assert refused.value.response["Error"]["Code"] == code


def test_a_token_opens_a_channel_once_and_only_that_of_its_session(start, cloud):
    first, second = start(), start()
    stranger = Client(first | {"StreamUrl": second["StreamUrl"]})
    client = Client(first)
    client.type("echo $((3 + 4))-mine\r")
    assert client.reads("7-mine")
    again = Client(first)
    again.type("echo $((5 + 6))-again\r")
    time.sleep(1)
    assert not again.written and not stranger.written and b"again" not in client.written
    for one in (first, second):
        cloud.ssm.terminate_session(SessionId=one["SessionId"])


def test_only_whom_a_policy_lets_in_starts_a_session_and_only_its_owner_ends_it(start, cloud, box):
    laptop = world.client(cloud.state, "ssm", "twin")
    mine = {"StringLike": {"ssm:resourceTag/aws:ssmmessages:session-id": "${aws:userid}"}}
    held = [
        {"Effect": "Allow", "Action": "ssm:StartSession", "Resource": f"arn:aws:ec2:*:*:instance/{box.instance}"},
        {"Effect": "Allow", "Action": ["ssm:TerminateSession", "ssm:ResumeSession"], "Resource": "*", "Condition": mine},
    ]
    others = start()["SessionId"]
    world.enforce(cloud.state, [{"Version": "2012-10-17", "Statement": held}])
    try:
        own = laptop.start_session(Target=box.instance)["SessionId"]
        with pytest.raises(ClientError, match="not authorized to perform: ssm:StartSession on resource: .*document/AWS-StartInteractive"):
            laptop.start_session(Target=box.instance, DocumentName="AWS-StartInteractiveCommand", Parameters={"command": ["ls"]})
        with pytest.raises(ClientError, match="not authorized to perform: ssm:TerminateSession"):
            laptop.terminate_session(SessionId=others)
        laptop.terminate_session(SessionId=own)
    finally:
        world.enforce(cloud.state, None)
        cloud.ssm.terminate_session(SessionId=others)


def test_a_box_whose_role_lacks_the_channel_has_no_sessions_and_its_commands_go_on(cloud, until):
    policy = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
    denied = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "ssmmessages:*", "Resource": "*"}]}
    assert policy in [one["PolicyArn"] for one in cloud.iam.list_attached_role_policies(RoleName="box")["AttachedPolicies"]]
    cloud.iam.put_role_policy(RoleName="box", PolicyName="no-channel", PolicyDocument=json.dumps(denied))
    try:
        other = cloud.box()
        assert other.run("echo hello")["StandardOutputContent"] == "hello\n"
        with pytest.raises(ClientError, match="is not connected"):
            cloud.ssm.start_session(Target=other.instance)
    finally:
        cloud.iam.delete_role_policy(RoleName="box", PolicyName="no-channel")
    cloud.ec2.terminate_instances(InstanceIds=[other.instance])
