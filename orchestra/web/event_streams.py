"""Server-sent events, for readers that may be slow or gone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from orchestra.codec import dump_json
from orchestra.errors import OrchestraError
from orchestra.web.problems import problem, problem_of

__all__ = ["STREAMS", "EventStream", "OpenStreams", "event"]

STREAMS: Final = 1_000
"""How many readers of event streams an application has at most, by default."""
_LATER: Final = 5
"""Seconds after which a reader that was refused may ask again."""

_HEARTBEAT: Final = 15.0
"""Seconds of silence after which a comment is sent: it shows a reader that has gone."""
_PATIENCE: Final = 30.0
"""Seconds after which a reader that takes nothing is dropped."""
_WAITING: Final = 16
"""Events that wait for a reader. The source waits when there are more: nothing piles up."""


class OpenStreams:
    """The event streams that an application has open: each costs a task and looks at the store."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0


def event(value: Any, event_id: int | None = None) -> bytes:
    """Return an event with a JSON value."""
    number = b"" if event_id is None else b"id: %d\n" % event_id
    return number + b"data: " + dump_json(value) + b"\n\n"


class EventStream(StreamingResponse):
    """Sends events until their source ends.

    A comment each 15 seconds finds readers that have gone. A reader that takes nothing for
    ``patience`` seconds is dropped: its connection is closed. A typed error of the source is sent
    as the event ``problem``, and ends it. A reader above the application's bound is answered with
    503.
    """

    def __init__(
        self,
        source: AsyncGenerator[bytes],
        *,
        patience: float = _PATIENCE,
        heartbeat: float = _HEARTBEAT,
    ) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(source, headers=headers, media_type="text/event-stream")
        self._source = source
        self._patience = patience
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        streams: OpenStreams = scope["app"].state.event_streams
        if streams.count >= streams.most:
            await self._source.aclose()
            await _full(streams.most)(scope, receive, send)
            return
        streams.count += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            streams.count -= 1

    async def stream_response(self, send: Send) -> None:
        """Send the events."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        outbox, inbox = anyio.create_memory_object_stream[bytes](_WAITING)
        async with anyio.create_task_group() as group:
            group.start_soon(self._read, outbox)
            with inbox:
                while True:
                    chunk = b": still here\n\n"
                    with anyio.move_on_after(self._heartbeat):
                        try:
                            chunk = await inbox.receive()
                        except anyio.EndOfStream:
                            break
                    if not await self._sent(send, chunk, more=True):
                        group.cancel_scope.cancel()
                        return
        await self._sent(send, b"", more=False)

    async def _sent(self, send: Send, chunk: bytes, *, more: bool) -> bool:
        """Whether the reader has taken a chunk. The server waits with it while its buffer for the
        reader is full.
        """
        try:
            with anyio.move_on_after(self._patience):
                await send({"type": "http.response.body", "body": chunk, "more_body": more})
                return True
        except OSError:  # it has closed the connection
            pass
        return False

    async def _read(self, outbox: MemoryObjectSendStream[bytes]) -> None:
        with outbox:
            try:
                async with aclosing(self._source) as source:
                    async for chunk in source:
                        await outbox.send(chunk)
            except OrchestraError as error:
                body = bytes(problem_of(error).body)
                await outbox.send(b"event: problem\ndata: " + body + b"\n\n")


def _full(most: int) -> JSONResponse:
    answer = problem(
        503,
        "TooManyStreams",
        f"{most:,} readers follow event streams of this service, as many as it takes",
        "Follow fewer, ask again later, or raise create_app(event_streams=).",
    )
    answer.headers["Retry-After"] = str(_LATER)
    return answer
