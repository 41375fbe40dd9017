"""``start``, ``event``, ``request``, ``messages``: what is sent to instances."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, cast

import click

from orchestra.cli.checks import ExitCode
from orchestra.cli.completion import INSTANCE
from orchestra.cli.output import Column, instant, text
from orchestra.cli.parameters import DURATION, INSTANT, JSON, LABEL
from orchestra.cli.work import Work, on_store, operator, resolve
from orchestra.client import Client
from orchestra.client.info import InstanceInfo, UnreadMessage
from orchestra.client.jsonable import jsonable
from orchestra.codec import dump_json
from orchestra.errors import WaitTimeout

__all__ = ["event", "messages", "request", "start"]


@click.command()
@click.argument("name")
@click.argument("value", type=JSON, required=False, metavar="[INPUT]")
@click.option("--id", "instance_id", help="Its id; by default a random one.")
@click.option("--version", help="Exactly this one; by default what the name's policy gives.")
@click.option("--queue", help="Only nodes that serve this queue run it.")
@click.option(
    "--label", "labels", multiple=True, type=LABEL, metavar="KEY=VALUE", help="May be repeated."
)
@click.option(
    "--event",
    "events",
    nargs=2,
    type=(str, JSON),
    multiple=True,
    metavar="NAME PAYLOAD",
    help="Send this event in the same write; may be repeated.",
)
@click.option("--request-id", help="Your own id of this start: the same one starts once.")
@click.option("--if-running", type=click.Choice(["error", "return", "terminate"]))
@click.option(
    "--if-ended",
    type=click.Choice(["error", "return", "restart", "restart_if_failed"]),
    default="error",
    show_default=True,
)
@click.option("--written-by", help="The version whose shape the input has.")
@click.option("--not-before", type=INSTANT, help="When its first turn may run, in ISO 8601.")
@click.option("--allow-unregistered", is_flag=True, help="Also where no node has the name yet.")
@on_store
def start(
    work: Work,
    name: str,
    value: Any,
    queue: str | None,
    labels: tuple[tuple[str, str], ...],
    if_running: str | None,
    if_ended: str,
    **options: Any,
) -> None:
    """Start an instance of the orchestration NAME.

    INPUT is JSON; a word that is none counts as a text.
    """
    if queue is not None:
        options["queue"] = queue

    async def begin(client: Client) -> InstanceInfo:
        handle = await client.start(
            name,
            value,
            labels=dict(labels) or None,
            if_running=cast("Literal['error', 'return', 'terminate'] | None", if_running),
            if_ended=cast("Literal['error', 'return', 'restart']", if_ended),
            **options,
        )
        return await handle.info()

    info = work.run(begin)
    work.output.value(info, lambda: text(info.instance_id))


@click.command()
@INSTANCE()
@click.argument("name")
@click.argument("value", type=JSON, required=False, metavar="[PAYLOAD]")
@click.option("--message-id", help="Your own id of this event: the same one arrives once.")
@on_store
def event(work: Work, instance: str, name: str, value: Any, message_id: str | None) -> None:
    """Send an event NAME to an instance. PAYLOAD is JSON."""

    async def send(client: Client) -> str:
        found = await resolve(client, instance)
        await client.raise_event(found, name, value, message_id=message_id)
        return found

    found = work.run(send)
    work.output.value({"instance_id": found, "name": name}, lambda: None)
    if work.output.is_for_people:
        work.output.say(f"sent {name!r} to {found}")


@click.command()
@INSTANCE()
@click.argument("name")
@click.argument("value", type=JSON, required=False, metavar="[VALUE]")
@click.option("--timeout", type=DURATION, help="How long to wait for the answer: 5s, 1m.")
@click.option("--request-id", help="Your own id of this request: the same one is asked once.")
@on_store
def request(
    work: Work,
    instance: str,
    name: str,
    value: Any,
    timeout: timedelta | None,
    request_id: str | None,
) -> ExitCode:
    """Ask an instance, and wait for the answer of its code. VALUE is JSON.

    A timeout takes nothing back: ask again with the request id that stderr names.
    """

    async def ask(client: Client) -> Any:
        found = await resolve(client, instance)
        return await client.request(found, name, value, timeout=timeout, request_id=request_id)

    try:
        answer = work.run(ask)
    except WaitTimeout as error:
        work.output.say(f"orchestra: {error}")
        if error.request_id is not None:
            work.output.say(f"ask again: --request-id {error.request_id}")
        return ExitCode.FAILURES
    work.output.json(answer)
    return ExitCode.FINE


@click.command()
@INSTANCE()
@click.option("--drop", is_flag=True, help="Remove those that --name or --message-id names.")
@click.option("--name", help="Only messages of this name.")
@click.option("--message-id", "message_ids", multiple=True, help="Only these; may be repeated.")
@click.option("--reason", default="", help="Why they are dropped, for the audit.")
@click.option("--after", type=int, default=0, help="Behind this number.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@on_store
def messages(
    work: Work,
    instance: str,
    name: str | None,
    message_ids: tuple[str, ...],
    reason: str,
    after: int,
    limit: int,
    *,
    drop: bool,
) -> None:
    """List what waits unread in an instance's inbox, or drop some of it."""
    if drop:

        async def remove(client: Client) -> int:
            found = await resolve(client, instance)
            return await client.drop_messages(
                found, name, message_ids or None, reason=reason, by=operator()
            )

        count = work.run(remove)
        work.output.value({"dropped": count}, lambda: text(f"dropped {count:,} messages"))
        return

    async def read(client: Client) -> tuple[UnreadMessage, ...]:
        return await client.list_messages(await resolve(client, instance), after=after, limit=limit)

    found = [
        one
        for one in work.run(read)
        if (name is None or one.name == name) and (not message_ids or one.message_id in message_ids)
    ]
    work.output.records(found, _COLUMNS, "nothing is unread")


def _payload(message: UnreadMessage) -> str:
    shown = dump_json(jsonable(message.payload)).decode()
    return shown if len(shown) <= 120 else f"{shown[:120]}..."


_COLUMNS: list[Column[UnreadMessage]] = [
    Column("NO", lambda one: str(one.sequence), right=True),
    Column("NAME", lambda one: one.name),
    Column("SENT", lambda one: instant(one.sent_at)),
    Column("MESSAGE ID", lambda one: one.message_id),
    Column("PAYLOAD", _payload),
    Column("SET ASIDE", lambda one: str(one.set_aside or "")),
]
