"""Text as people save it: the one reader of rows, of texts to answer and of token files.

UTF-8, with the mark that Windows puts before it or without, and UTF-16 are read. Anything else is named with its line, and with
what the byte would be in Windows-1252: the owner decides. Files may be packed, as .gz or .zst.
"""

import gzip
import re
import shlex
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

COMPRESSED = (".gz", ".zst")
LONGEST = 64 * 2**20  # bytes of a line: a book has one
LARGEST = 8 * 2**30  # bytes of a file, unpacked
HEAD_BYTES = 32  # bytes by which a file's kind is known
NUL = "the character U+0000 is no text"
SURROGATE = re.compile("[\ud800-\udfff]")
LFS = b"version https://git-lfs"
# What files that are no text begin with.
MAGIC = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\x1f\x8b": "packed by gzip: its name must end in .gz",
    b"\x28\xb5\x2f\xfd": "packed by zstd: its name must end in .zst",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    LFS: "a pointer of Git LFS: `git lfs pull` fetches the file itself",
    b"PAR1": "Parquet: its name must end in .parquet",
    b"SQLite": "a database",
    b"%PDF": "a PDF",
}


class TextError(ValueError):
    """Bytes that are not text: their line where there is one, what is wrong, and a hint."""

    def __init__(self, line: int | None, what: str, hint: str):
        super().__init__(what if line is None else f"line {line}: {what}")
        self.line = line
        self.what = what
        self.hint = hint


def decode(data: bytes, name: str = "FILE") -> str:
    """The text that the bytes are; a TextError with the first line that is none."""
    encoding = _encoding(data)
    try:
        if data.startswith(LFS):
            raise TextError(None, f"the file is {MAGIC[LFS]}", "then run this again")
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if kind := _kind(data):
            raise TextError(None, f"the file is {kind}", "save it as text in UTF-8") from error
        raise decode_error(error, data.count(b"\n", 0, error.start) + 1, name) from error
    if (position := text.find("\0")) >= 0:
        raise TextError(text.count("\n", 0, position) + 1, NUL, "take it out, or write the file again as text")
    return text.replace("\n\ufeff", "\n")  # concatenated files, each with a byte order mark


def decode_error(error: UnicodeDecodeError, line: int | None, name: str) -> TextError:
    """The error of bytes that are not text."""
    not_text = not_utf8(error.object[error.start : error.start + 1], line, name)
    if error.reason != "unexpected end of data":
        return not_text
    return TextError(
        line, f"{not_text.what}, or the file was cut off within a character", f"fetch it again where it was cut off; else {not_text.hint}"
    )


def not_utf8(byte: bytes, line: int | None, name: str) -> TextError:
    """What to say of a byte that is not UTF-8."""
    character = byte.decode("cp1252", "ignore")
    guess = f"; in Windows-1252 it is {character!r}" if character else ""
    file, new = shlex.quote(name), shlex.quote(f"utf8-{Path(name).name}")
    return TextError(line, f"byte 0x{byte.hex()} is not UTF-8{guess}", f"save the file as UTF-8: `iconv -f CP1252 -t UTF-8 {file} > {new}`")


def lines(path: Path, name: str) -> Iterator[bytes | TextError]:
    """The lines of a file as UTF-8, however it is saved and packed; what cannot be read is yielded as a TextError, and reading goes on."""
    with open_unpacked(path, name) as file:
        head = file.peek(HEAD_BYTES)[:HEAD_BYTES]
        if kind := _kind(head):
            yield TextError(None, f"the file is {kind}", "write the rows as JSON Lines")
            return
        encoding = _encoding(head)
        if encoding != "utf-8-sig":
            yield from (line.encode() for line in decode(file.read(LARGEST), name).split("\n"))
            return
        yield from _utf8(file)


def _utf8(file: BinaryIO) -> Iterator[bytes | TextError]:
    number, size = 0, 0
    # Not splitlines(): U+2028 and others may be inside a JSON string, where they end no line.
    while line := file.readline(LONGEST):
        number, size = number + 1, size + len(line)
        if size > LARGEST:
            yield TextError(number, f"the file holds more than {LARGEST // 2**30} GiB", "make several files of it")
            return
        if len(line) == LONGEST and not line.endswith(b"\n"):
            while (rest := file.readline(LONGEST)) and not rest.endswith(b"\n"):
                size += len(rest)
            yield TextError(
                number, f"the line has more than {LONGEST // 2**20} MiB", "a row is a text that a model reads: make it several rows"
            )
        else:
            yield line.removeprefix(b"\xef\xbb\xbf")  # each of several files that were put together may have it


def read(path: Path, name: str) -> str:
    """All text of a file."""
    with open_unpacked(path, name) as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise TextError(None, f"the file holds more than {LARGEST // 2**30} GiB", "make several files of it")
    return decode(data, name)


def open_unpacked(path: Path, name: str) -> BinaryIO:
    """The bytes of a file; `name` says how it is packed."""
    ending = Path(name).suffix.lower()
    if ending == ".gz":
        return gzip.open(path)
    return _zstd(path) if ending == ".zst" else path.open("rb")


def _zstd(path: Path) -> BinaryIO:
    try:
        from compression import zstd  # Python 3.14's own
    except ImportError:
        from backports import zstd
    return zstd.open(path)


def unpack_error(error: Exception) -> str | None:
    """Why a packed file cannot be read; None for any other error."""
    if isinstance(error, ImportError):
        return ".zst cannot be read without the package backports.zstd (`pip install -r requirements.txt`)"
    packed = isinstance(error, EOFError | gzip.BadGzipFile | zlib.error) or type(error).__name__ == "ZstdError"
    return f"the file cannot be unpacked ({error})" if packed else None


def lone_surrogate(text: str) -> str | None:
    """The first lone surrogate in the text, as JSON writes it; no encoding has it. None where there is none."""
    match = SURROGATE.search(text)
    return f"\\u{ord(match[0]):04x}" if match else None


def _encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if head[:1] and head[1:2] == b"\0":
        return "utf-16-le"  # letters without a mark before them
    return "utf-16-be" if head[:1] == b"\0" and head[1:2] else "utf-8-sig"


def _kind(head: bytes) -> str | None:
    return next((kind for sign, kind in MAGIC.items() if head.startswith(sign)), None)
