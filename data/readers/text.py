"""Text as people save it: the one reader of rows, of texts to answer and of token files.

UTF-8, with the mark that Windows puts before it or without, and UTF-16 are read. Anything else is named with its line, and with
what the byte would be in Windows-1252: nobody but its owner can know. Files may be packed, as .gz or .zst.
"""

import gzip
import re
import shlex
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PACKED = (".gz", ".zst")
LONGEST = 64 * 2**20  # bytes of a line: a book has one
LARGEST = 8 * 2**30  # bytes of a file, unpacked
MARK = 32  # bytes by which a file's kind is known
NUL = "the character U+0000 stands there, which is no text"
HALF = re.compile("[\ud800-\udfff]")
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
    """A place that is no text: its line where it has one, what is wrong, how to mend it."""

    def __init__(self, line: int | None, what: str, mend: str):
        super().__init__(what if line is None else f"line {line}: {what}")
        self.line = line
        self.what = what
        self.mend = mend


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
        raise undecoded(error, data.count(b"\n", 0, error.start) + 1, name) from error
    if (place := text.find("\0")) >= 0:
        raise TextError(text.count("\n", 0, place) + 1, NUL, "take it out, or write the file again as text")
    return text.replace("\n\ufeff", "\n")  # files with a mark each, one behind the other


def undecoded(error: UnicodeDecodeError, line: int | None, name: str) -> TextError:
    """What to say of bytes that are no text."""
    told = no_text(error.object[error.start : error.start + 1], line, name)
    if error.reason != "unexpected end of data":
        return told
    return TextError(
        line, f"{told.what}, or the file was cut off within a character", f"fetch it again where it was cut off; else {told.mend}"
    )


def no_text(byte: bytes, line: int | None, name: str) -> TextError:
    """What to say of a byte that is not UTF-8."""
    meant = byte.decode("cp1252", "ignore")
    looks = f"; in Windows-1252 it is {meant!r}" if meant else ""
    file, new = shlex.quote(name), shlex.quote(f"utf8-{Path(name).name}")
    return TextError(line, f"byte 0x{byte.hex()} is not UTF-8{looks}", f"save the file as UTF-8: `iconv -f CP1252 -t UTF-8 {file} > {new}`")


def lines(path: Path, name: str) -> Iterator[bytes | TextError]:
    """The lines of a file as UTF-8, however it is saved and packed; what cannot be read is told in its place, and reading goes on."""
    with unpacked(path, name) as file:
        head = file.peek(MARK)[:MARK]
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
    # Not splitlines(): U+2028 and others may stand inside a JSON string, where they end no line.
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
    with unpacked(path, name) as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise TextError(None, f"the file holds more than {LARGEST // 2**30} GiB", "make several files of it")
    return decode(data, name)


def unpacked(path: Path, name: str) -> BinaryIO:
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


def unreadable(error: Exception) -> str | None:
    """What befell a packed file, in words; None for any other error."""
    if isinstance(error, ImportError):
        return ".zst cannot be read without the package backports.zstd (`pip install -r requirements.txt`)"
    packed = isinstance(error, EOFError | gzip.BadGzipFile | zlib.error) or type(error).__name__ == "ZstdError"
    return f"the file cannot be unpacked ({error})" if packed else None


def half(text: str) -> str | None:
    """The half of a character that stands in the text alone, as JSON writes it: no encoding has it."""
    found = HALF.search(text)
    return f"\\u{ord(found[0]):04x}" if found else None


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
