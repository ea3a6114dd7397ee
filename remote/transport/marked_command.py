"""One command in a session whose client tells no exit code: it stands behind the output, between marks that no command writes by chance."""

import base64
import re
import secrets

SIGN = b"\x1e"  # record separator; no terminal shows it


class MarkedCommand:
    def __init__(self, command: str):
        self.nonce = secrets.token_hex(8)
        self.command = command
        self.begin, self.end = SIGN + f"{self.nonce}[".encode(), re.compile(SIGN + self.nonce.encode() + rb"\](\d+)" + SIGN)
        self.outside = b""  # what the client itself has said
        self.begun = False
        self.buffer = b""
        self.code: int | None = None

    @property
    def text(self) -> str:
        """What `sh -c` is to run. The command is in letters that neither a shell nor the agent, which fills in `{{ssm:NAME}}`, acts on.
        Ctrl-C ends the command, and not what waits for its code."""
        letters = base64.b64encode(self.command.encode()).decode()
        runs = f'bash -c "$(printf %s {letters} | base64 -d)"'
        return f"trap : INT QUIT; printf '\\036{self.nonce}['; {runs}; printf '\\036{self.nonce}]%d\\036' $?"

    def show(self, written: bytes) -> bytes:
        """The command's own output in what the client writes, as soon as it is known to be that."""
        self.buffer += written
        if not self.begun:
            before, mark, after = self.buffer.partition(self.begin)
            if not mark:
                return b""
            self.outside, self.buffer, self.begun = before, after, True
        if self.code is not None:
            return b""
        if match := self.end.search(self.buffer):
            self.code = int(match[1])
            return self.buffer[: match.start()]
        start = self.buffer.rfind(SIGN)
        held = len(self.buffer) if start < 0 or len(self.buffer) - start > len(self.nonce) + 6 else start
        shown, self.buffer = self.buffer[:held], self.buffer[held:]
        return shown

    @property
    def complaint(self) -> str:
        """The last line that the client has said, where the command's end was not heard."""
        lines = (self.outside + self.buffer).decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
