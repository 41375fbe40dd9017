"""Store large values in Amazon S3, or in what speaks its API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

from orchestra.errors import InvalidArgument

__all__ = ["S3Storage"]

_GONE = {"NoSuchKey", "404", "NotFound"}


class S3Storage:
    """Stores values as objects of a bucket. It needs the extra ``s3``.

    Args:
        bucket: the bucket, which exists.
        prefix: stands before the key of each object: ``"orchestra/"``, say. Two stores need two
            prefixes.
        client: a client of boto3, where the default one does not do: another endpoint, region or
            credentials. Several threads use it at once, which boto3's clients allow.

    Raises:
        InvalidArgument: the package boto3 is missing, or the bucket has no name.
    """

    def __init__(self, bucket: str, prefix: str = "", *, client: Any = None) -> None:
        if not bucket:
            raise InvalidArgument("the bucket has no name")
        self._bucket = bucket
        self._prefix = prefix
        self._client: Any = _default_client() if client is None else client

    def __repr__(self) -> str:
        return f"S3Storage({self._bucket!r}, {self._prefix!r})"

    def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data)

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
        except Exception as error:
            response: Any = getattr(error, "response", {})
            if response.get("Error", {}).get("Code") in _GONE:
                raise KeyError(key) from error
            raise
        return bytes(found["Body"].read())

    def objects(self) -> Iterator[tuple[str, datetime]]:
        """Yield the objects below the prefix, each with the time at which it was stored."""
        pages: Any = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
            for found in cast("list[dict[str, Any]]", page.get("Contents", ())):
                moment: datetime = found["LastModified"]
                yield str(found["Key"])[len(self._prefix) :], moment.astimezone(UTC)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)


def _default_client() -> Any:
    try:
        import boto3  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs, reportMissingImports] - an extra
    except ImportError as error:
        raise InvalidArgument(
            "S3Storage needs the package boto3: install orchestra-runtime[s3]"
        ) from error
    made: Any = cast("Any", boto3).client("s3")
    return made
