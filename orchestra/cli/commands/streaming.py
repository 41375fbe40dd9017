"""``streams``: what instances publish while they work."""

from __future__ import annotations

from typing import Final

import click

from orchestra.cli.completion import INSTANCE
from orchestra.cli.output import Column, instant, text
from orchestra.cli.work import Work, on_store, resolve
from orchestra.client import Client
from orchestra.client.jsonable import jsonable
from orchestra.client.streams import StreamInfo
from orchestra.codec import dump_json

__all__ = ["streams"]


@click.group()
def streams() -> None:
    """List and read the streams of an instance."""


@streams.command("ls")
@INSTANCE()
@on_store
def list_streams(work: Work, instance: str) -> None:
    """List the streams of an instance."""

    async def read(client: Client) -> tuple[StreamInfo, ...]:
        return await client.list_streams(await resolve(client, instance))

    work.output.records(work.run(read), _COLUMNS, "nothing was published")


_COLUMNS: Final[list[Column[StreamInfo]]] = [
    Column("STREAM", lambda one: one.name),
    Column("FIRST", lambda one: f"{one.first_offset:,}", right=True),
    Column("LAST", lambda one: f"{one.last_offset:,}", right=True),
    Column("BYTES", lambda one: f"{one.bytes:,}", right=True),
]


@streams.command("read")
@INSTANCE()
@click.argument("stream")
@click.option("--after", type=int, default=0, help="Behind this item.")
@click.option("--follow", is_flag=True, help="Wait for further items, until the instance ends.")
@on_store
def read_stream(work: Work, instance: str, stream: str, after: int, *, follow: bool) -> None:
    """Read a stream: a line for each item; as JSON lines with -o jsonl."""

    async def read(client: Client) -> None:
        found = await resolve(client, instance)
        async for item in client.read_stream(found, stream, after=after, follow=follow):
            if work.output.is_for_people:
                attempt = "" if item.attempt is None else f" (attempt {item.attempt})"
                value = dump_json(jsonable(item.value)).decode()
                work.output.draw(text(f"{item.offset}  {instant(item.at)}  {value}{attempt}"))
            else:
                work.output.line(item)

    work.run(read)
