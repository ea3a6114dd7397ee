"""A run's objects in S3. Anybody with write access can store anything there: reads have a limit."""

import os
from typing import Any, BinaryIO

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from s3transfer.exceptions import RetriesExceededError

UNREACHABLE = (ClientError, BotoCoreError, RetriesExceededError)  # the last is a download's
THROTTLED = ("SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestLimitExceeded")
GONE = ("NoSuchKey", "404")
LOST = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")


class Store:
    """Objects below the prefix. Names are relative to it."""

    def __init__(self, bucket: str, prefix: str):
        settings = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": 6})
        self.client = boto3.client("s3", config=settings)
        self.bucket, self.prefix = bucket, prefix

    def key(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{name}" if self.prefix else name}

    def get(self, name: str, most: int) -> bytes | None:
        return self.get_with_etag(name, most)[0]

    def get_with_etag(self, name: str, most: int) -> tuple[bytes | None, str | None]:
        """The object and its etag; None where there is none. A ValueError where it is larger than `most`."""
        try:
            answer = self.client.get_object(**self.key(name))
        except ClientError as error:
            if error.response["Error"]["Code"] in GONE:
                return None, None
            raise
        if answer["ContentLength"] > most:
            raise ValueError(f"{name} has {answer['ContentLength']:,} bytes, and no more than {most:,} are read")
        return answer["Body"].read(), answer["ETag"]

    def put(self, name: str, body: bytes) -> None:
        self.client.put_object(**self.key(name), Body=body)

    def upload(self, name: str, file: BinaryIO) -> None:
        """A file of any size, in parts where it is large."""
        self.client.upload_fileobj(file, **self.key(name))

    def download(self, name: str, file: BinaryIO) -> None:
        self.client.download_fileobj(**self.key(name), Fileobj=file)

    def claim(self, name: str, body: bytes, etag: str | None) -> bool:
        """Put the object if it is still the one of this etag, or still absent; whether that went well."""
        condition: dict[str, Any] = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            self.client.put_object(**self.key(name), Body=body, **condition)
            return True
        except ClientError as error:
            if error.response["Error"]["Code"] not in LOST:
                raise
            return False

    def names(self, under: str) -> dict[str, int]:
        """Every object below, by name and size."""
        start = len(self.key("")["Key"])
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.key(under)["Key"])
        return {item["Key"][start:]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def remove(self, names: list[str]) -> None:
        for start in range(0, len(names), 1000):
            keys = [{"Key": self.key(name)["Key"]} for name in names[start : start + 1000]]
            self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True})


def may_pass(error: Exception) -> bool:
    """Whether waiting helps: AWS does not answer, or not now. What it refuses it refuses again."""
    if not isinstance(error, ClientError):
        return True
    about = error.response
    return about.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500 or about["Error"].get("Code") in THROTTLED


def from_environment() -> Store:
    return Store(os.environ["BUCKET"], os.environ["PREFIX"].strip("/"))
