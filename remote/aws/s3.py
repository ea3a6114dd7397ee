"""Objects under one prefix of one bucket. The only file with boto3's s3.

Anybody with write access can store anything there. So reads have a limit, JSON must be an object whose texts are safe to print, and a file
goes only into the folder that it was fetched for.
"""

import base64
import hashlib
import json
import shlex
import shutil
from datetime import datetime
from pathlib import Path

from conf import paths
from conf.problem import Problem
from conf.text import visible
from remote.aws.session import Aws

LARGEST = 1 << 28  # bytes of an object that is read into memory: days of events
RECORD = 1 << 24  # of a JSON object: a manifest, a state, a lock


def parse_time(text: str) -> datetime:
    """A time from a stored record; a ValueError if it has no zone or is far from today."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or not 2000 <= moment.year < 2200:
        raise ValueError(f"{text} is no moment in a zone, or far from today")
    return moment


def check_text(value: str) -> str:
    """A text from a stored record; a ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:100]} is no text")
    return value


class Store:
    def __init__(self, aws: Aws):
        self.client = aws.client("s3")
        self.bucket = aws.cloud.bucket
        self.prefix = aws.cloud.prefix.strip("/")

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{self.key(name)}"

    def get(self, name: str, most: int = LARGEST) -> bytes | None:
        """The object's bytes, or None when there is none; a Problem when there are more than `most`."""
        return self.get_with_etag(name, most)[0]

    def json(self, name: str) -> dict | None:
        """The JSON object that is stored there, its texts fit to be shown; None when there is none, a Problem when it is something else."""
        body = self.get(name, RECORD)
        return None if body is None else self.parse_json(name, body)

    def parse_json(self, name: str, body: bytes) -> dict:
        """The JSON object in bytes that were read from there, its texts fit to be shown."""
        try:
            value = json.loads(body.decode(errors="replace"))  # evidence is cut by bytes, maybe within a letter
            if isinstance(value, dict):
                return visible.values(value)
        except (ValueError, RecursionError):
            pass
        raise self._damaged(name, "is no JSON object")

    def _damaged(self, name: str, what: str) -> Problem:
        return Problem(f"{self.url(name)} {what}", f"`aws s3 cp {shlex.quote(self.url(name))} - | head -c 300` shows it", "damaged_run")

    def put(self, name: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.key(name), Body=body)

    def get_with_etag(self, name: str, most: int = LARGEST) -> tuple[bytes | None, str | None]:
        """The object's bytes and its etag; None and None when there is none."""
        try:
            answer = self.client.get_object(Bucket=self.bucket, Key=self.key(name))
        except self.client.exceptions.NoSuchKey:
            return None, None
        if answer["ContentLength"] > most:
            raise self._damaged(name, f"has {answer['ContentLength']:,} bytes, and no more than {most:,} are read")
        return answer["Body"].read(), answer["ETag"]

    def create(self, name: str, body: bytes) -> str | None:
        """The new object's etag, or None when there was one already."""
        return self._conditional("put_object", name, Body=body, IfNoneMatch="*").get("ETag")

    def replace(self, name: str, body: bytes, etag: str) -> str | None:
        """The object's new etag, or None when it was no longer the one with `etag`."""
        return self._conditional("put_object", name, Body=body, IfMatch=etag).get("ETag")

    def remove(self, name: str, etag: str) -> None:
        """Remove the object if it is still the one with `etag`."""
        self._conditional("delete_object", name, IfMatch=etag)

    def remove_all(self, names: list[str]) -> None:
        """Remove the objects, in their order, in calls of a thousand."""
        for start in range(0, len(names), 1000):
            keys = [{"Key": self.key(name)} for name in names[start : start + 1000]]
            answer = self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True})
            if failed := answer.get("Errors"):
                raise Problem(f"S3 did not remove {failed[0]['Key']} ({failed[0]['Code']})", "run the same command again", reason="refused")

    def _conditional(self, operation: str, name: str, **more) -> dict:
        """The answer; an empty one where the condition does not hold."""
        try:
            return getattr(self.client, operation)(Bucket=self.bucket, Key=self.key(name), **more)
        except self.client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"):
                return {}
            raise

    def names(self, under: str) -> dict[str, int]:
        """Every object below `under`, by name and size: all pages of the listing."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.key(under))
        start = len(self.key(""))
        return {item["Key"][start:]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def put_input(self, path: Path) -> tuple[str, bool]:
        """Put a file at `inputs/<sha256>` unless it is there; its sha256, and whether it had to travel."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        name = f"inputs/{digest.hexdigest()}"
        if name in self.names(name):
            return digest.hexdigest(), False
        # S3 refuses the body when it does not match: what is stored under a hash has that hash.
        checksum = base64.b64encode(digest.digest()).decode()
        with path.open("rb") as file:
            self.client.put_object(Bucket=self.bucket, Key=self.key(name), Body=file, ChecksumSHA256=checksum)
        return digest.hexdigest(), True

    def download(self, name: str, folder: Path, below: str, size: int) -> None:
        """Put the object of so many bytes into `folder`, where somebody else's word `below` names a place in it."""
        target = paths.inside(folder, below)
        if (actual_size := self._size(name)) != size:
            raise self._damaged(name, f"has {actual_size:,} bytes, and its record says {size:,}")
        target.parent.mkdir(parents=True, exist_ok=True)
        if size > (free := shutil.disk_usage(target.parent).free):
            raise Problem(f"{self.url(name)} has {size:,} bytes, and {folder} has room for {free:,}", "make room there", "disk_full")
        part = target.with_name(target.name + ".part")
        self.client.download_file(self.bucket, self.key(name), str(part))
        part.replace(target)

    def _size(self, name: str) -> int:
        try:
            return self.client.head_object(Bucket=self.bucket, Key=self.key(name))["ContentLength"]
        except self.client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
            hint = f"`aws s3 ls {shlex.quote(self.url(name.rsplit('/', 1)[0]))}/` shows what is there"
            raise Problem(f"{self.url(name)} is missing", hint, reason="damaged_run") from error

    def check_bucket(self) -> None:
        """Nothing, or a Problem when the bucket cannot be used."""
        try:
            self.client.head_bucket(Bucket=self.bucket)
        except self.client.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            raise Problem(
                f"bucket `{self.bucket}` cannot be used ({code})",
                f"set `cloud.bucket` to a bucket of yours, or make this one: `aws s3 mb s3://{self.bucket}`",
                reason="refused",
            ) from error
