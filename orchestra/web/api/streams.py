"""Streams: what instances publish, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import Header
from fastapi.responses import JSONResponse

from orchestra.client.jsonable import jsonable
from orchestra.client.streams import StreamInfo
from orchestra.errors import InvalidArgument
from orchestra.web.access import CurrentClient
from orchestra.web.answers import Routes, answer
from orchestra.web.event_streams import EventStream, event
from orchestra.web.paths import Id, id_of

__all__ = ["routes"]

routes: Routes = Routes("streams")


@routes.route("GET", "/instances/{instance_id}/streams", tuple[StreamInfo, ...])
async def list_streams(instance_id: Id, client: CurrentClient) -> JSONResponse:
    """Return the streams of an instance."""
    return answer(await client.list_streams(id_of(instance_id)))


@routes.route("GET", "/instances/{instance_id}/streams/{stream}", str)
async def read_stream(
    instance_id: Id,
    stream: str,
    client: CurrentClient,
    after: int | None = None,
    *,
    follow: bool = True,
    last_event_id: Annotated[str | None, Header()] = None,
) -> EventStream:
    """Stream the items as server-sent events: ``id`` is the offset, ``data`` the item as JSON.

    It begins behind ``after``, or behind the ``Last-Event-ID`` that a browser sends when it was cut
    off, and ends with the instance, or with the last item that there is if ``follow`` is false.
    """
    begin = after if after is not None else _offset(last_event_id)
    found = id_of(instance_id)
    await client.list_streams(found)  # an instance that is not there is a problem, and no stream

    async def events() -> AsyncGenerator[bytes]:
        async for item in client.read_stream(found, id_of(stream), after=begin, follow=follow):
            yield event(jsonable(item), item.offset)

    return EventStream(events())


def _offset(last: str | None) -> int:
    if last is None:
        return 0
    if not last.isdecimal():
        raise InvalidArgument(f"Last-Event-ID {last!r} is no offset of a stream")
    return int(last)
