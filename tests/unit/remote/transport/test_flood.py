"""A box that says without end, over SSH: of Run Command AWS keeps a part, here we do."""

from remote.transport import ssh


class Flood:
    """A channel that always has more to read."""

    closed = False

    def recv_ready(self) -> bool:
        return True

    recv_stderr_ready = recv_ready

    def recv(self, size: int) -> bytes:
        return b"o" * size

    def recv_stderr(self, size: int) -> bytes:
        return b"e" * size


def test_a_box_that_says_without_end_takes_no_memory_of_the_laptop():
    """The first of its facts are kept, and its last words."""
    out, err = bytearray(b"@@ first=yes\n"), bytearray(b"long ago\n")
    for _ in range(40):
        ssh._drain(Flood(), out, err)
    assert len(out) == len(err) == ssh.MOST
    assert out.startswith(b"@@ first=yes\n") and not err.startswith(b"long ago")
