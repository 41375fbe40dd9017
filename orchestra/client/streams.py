"""Read what instances and their activities publish."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from orchestra.client.access import Access
from orchestra.client.arguments import check_id
from orchestra.client.port import StreamWatch
from orchestra.clock import from_micros
from orchestra.codec import decoder
from orchestra.errors import InstanceNotFound, StreamTruncated
from orchestra.ids import check_stream
from orchestra.operations.lookup import not_found
from orchestra.options import check_count
from orchestra.store.streams import StreamPage

__all__ = ["StreamInfo", "StreamItem", "list_streams", "read_stream"]

T = TypeVar("T")

_SHORTEST: Final = 0.05
_LONGEST: Final = 1.0


@dataclass(frozen=True, slots=True)
class StreamItem(Generic[T]):
    """An item of a stream. Offsets are 1, 2, 3, ... without a gap.

    ``attempt`` is the attempt of the activity that published it, and ``event_id`` the event that
    scheduled the activity; both are ``None`` for what the orchestration itself has published. The
    items of an attempt that failed stay: those of a later attempt of the same activity replace
    them.
    """

    offset: int
    value: T
    at: datetime
    execution_id: int
    event_id: int | None
    attempt: int | None


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A stream of an instance. Items before ``first_offset`` were cut; ``bytes`` are those of the
    values that are kept.
    """

    name: str
    first_offset: int
    last_offset: int
    bytes: int


async def read_stream(
    access: Access,
    instance_id: str,
    name: str,
    annotation: Any,
    after: int,
    *,
    follow: bool,
) -> AsyncGenerator[StreamItem[Any]]:
    """Yield the items of a stream behind an offset; see :meth:`Client.read_stream`."""
    check_id(instance_id)
    check_stream(name)
    check_count(after, "after", least=0)
    read, subject = decoder(annotation), f"item of stream {name!r} of {instance_id!r}"
    born: str | None = None
    pause = _SHORTEST
    watching: AbstractContextManager[StreamWatch | None] = (
        access.port.watch_stream(instance_id) if follow else nullcontext()
    )
    with watching as watch:
        while True:
            offset = after
            page = await access.read(
                lambda directory, at=offset: directory.stream(instance_id, name, at)
            )
            born = _check(page, instance_id, name, after, born)
            assert page is not None
            for item in page.items:
                after = item.offset
                value = read.decode(item.payload, subject=subject)
                at = from_micros(item.at)
                yield StreamItem(after, value, at, item.execution, item.event_id, item.attempt)
            if page.stream is not None and after < page.stream.last_offset:
                continue
            if page.ended or watch is None:
                return
            pause = _SHORTEST if page.items else min(_LONGEST, pause * 1.5)
            await watch.wait(pause)


def _check(
    page: StreamPage | None, instance_id: str, name: str, after: int, born: str | None
) -> str | None:
    """Check that a page goes on where the one before has ended. Return the life of the instance in
    which the stream began.
    """
    if page is None:
        raise not_found(instance_id)
    stream = page.stream
    if stream is None:
        if born is None:
            return None
    elif born in (None, stream.incarnation):
        if after + 1 < stream.first_offset:
            raise StreamTruncated(
                f"the items of stream {name!r} of {instance_id!r} before offset "
                f"{stream.first_offset} were cut; read with after={stream.first_offset - 1}",
                instance_id=instance_id,
                stream=name,
                first_offset=stream.first_offset,
            )
        return stream.incarnation
    raise InstanceNotFound(
        f"instance {instance_id!r} was deleted, and another one has its id; read its streams anew",
        instance_id=instance_id,
    )


async def list_streams(access: Access, instance_id: str) -> tuple[StreamInfo, ...]:
    """Return the streams of an instance; see :meth:`Client.list_streams`."""
    check_id(instance_id)
    rows = await access.read(lambda directory: directory.streams(instance_id))
    if not rows:
        await access.record(instance_id)  # which raises, if there is none
    return tuple(StreamInfo(row.name, row.first_offset, row.last_offset, row.bytes) for row in rows)
