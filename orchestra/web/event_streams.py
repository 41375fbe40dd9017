"""Server-sent events, for readers that may be slow or gone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from fastapi.responses import StreamingResponse
from starlette.types import Send

from orchestra.codec import dump_json
from orchestra.errors import OrchestraError
from orchestra.web.problems import problem_of

__all__ = ["EventStream", "event"]

_HEARTBEAT: Final = 15.0
"""Seconds of silence after which a comment is sent: it shows a reader that has gone."""
_PATIENCE: Final = 30.0
"""Seconds after which a reader that takes nothing is dropped."""
_WAITING: Final = 16
"""Events that wait for a reader. The source waits when there are more: nothing piles up."""


def event(value: Any, event_id: int | None = None) -> bytes:
    """Return an event with a JSON value."""
    number = b"" if event_id is None else b"id: %d\n" % event_id
    return number + b"data: " + dump_json(value) + b"\n\n"


class EventStream(StreamingResponse):
    """Sends events until their source ends.

    A comment each 15 seconds finds readers that have gone. A reader that takes nothing for
    ``patience`` seconds is dropped: its connection is closed. A typed error of the source is sent
    as the event ``problem``, and ends it.
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
