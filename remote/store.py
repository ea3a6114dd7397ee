"""Objects under one prefix of one bucket. The only file with boto3's s3."""

import base64
import hashlib
from pathlib import Path

from conf.problem import Problem
from remote.aws import Aws


class Store:
    def __init__(self, aws: Aws):
        self.client = aws.client("s3")
        self.bucket = aws.cloud.bucket
        self.prefix = aws.cloud.prefix.strip("/")

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{self.key(name)}"

    def get(self, name: str) -> bytes | None:
        """The object's bytes, or None when there is none."""
        try:
            return self.client.get_object(Bucket=self.bucket, Key=self.key(name))["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None

    def put(self, name: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.key(name), Body=body)

    def tagged(self, name: str) -> tuple[bytes | None, str | None]:
        """The object's bytes and its etag; None and None when there is none."""
        try:
            found = self.client.get_object(Bucket=self.bucket, Key=self.key(name))
        except self.client.exceptions.NoSuchKey:
            return None, None
        return found["Body"].read(), found["ETag"]

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
        return {entry["Key"][start:]: entry["Size"] for page in pages for entry in page.get("Contents", [])}

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

    def download(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        try:
            self.client.download_file(self.bucket, self.key(name), str(part))
        except self.client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
            hint = f"`aws s3 ls {self.url(name.rsplit('/', 1)[0])}/` shows what is there"
            raise Problem(f"{self.url(name)} is missing", hint, reason="damaged_run") from error
        part.replace(target)

    def check(self) -> None:
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
