"""``watch``: instances as they change."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from orchestra.cli.commands.looking import (
    LAPS,
    instance_columns,
    status_text,
    version_text,
    waits_text,
)
from orchestra.cli.completion import INSTANCE
from orchestra.cli.drawings import ribbon_lines, show_instance
from orchestra.cli.output import console_for_people, instant, table_of, text
from orchestra.cli.parameters import selection_options
from orchestra.cli.work import Work, on_store, resolve
from orchestra.client import Client
from orchestra.client.info import InstanceInfo
from orchestra.client.selections import Selection

__all__ = ["watch"]


@click.command()
@selection_options
@INSTANCE(required=False)
@click.option("--lines", is_flag=True, help="A line for each change, also on a terminal.")
@on_store
def watch(work: Work, selection: Selection, instance: str | None, *, lines: bool) -> None:
    """Show an instance as it changes until it has ended, or all that the options select.

    On a terminal the picture is drawn anew at each change: laps, versions, status, and what it
    waits for. In a pipe, or with --lines, each change is a line; -o jsonl writes the whole info of
    each.
    """
    if (instance is not None) == (selection != Selection()):
        raise click.UsageError("name an instance, or give conditions such as --name")
    is_drawn = work.output.is_for_people and sys.stdout.isatty() and not lines

    async def follow(client: Client) -> None:
        if instance is not None:
            one = await resolve(client, instance)
            await (_draw_one(client, one) if is_drawn else _tell_one(work, client, one))
        elif is_drawn:
            await _draw_all(client, selection)
        else:
            await _tell_all(work, client, selection)

    work.run(follow)


async def _tell_one(work: Work, client: Client, instance_id: str) -> None:
    async for info in client.watch(instance_id):
        if work.output.is_for_people:
            work.output.draw(_line(info))
        else:
            work.output.line(info)


async def _tell_all(work: Work, client: Client, selection: Selection) -> None:
    async for change in client.watch_instances(selection):
        if not work.output.is_for_people:
            work.output.line(change)
        elif change.info is None:
            work.output.draw(text(f"{change.instance_id} has left"))
        else:
            work.output.draw(_line(change.info, f"  ({change.change})"))


def _line(info: InstanceInfo, more: str = "") -> Text:
    line = Text(f"{instant(info.updated_at)}  ")
    line.append_text(status_text(info))
    waits = waits_text(info)
    line.append_text(text(f"  {info.instance_id}  {version_text(info)}  lap {info.execution_id:,}"))
    line.append_text(text(f"  waits for {waits}" if waits else ""))
    return line.append(more)


async def _draw_one(client: Client, instance_id: str) -> None:
    with Live(console=console_for_people(), auto_refresh=False) as live:
        async for info in client.watch(instance_id):
            after = max(0, info.execution_id - LAPS)
            laps = await client.list_executions(instance_id, after=after, limit=LAPS)
            at = await client.now()
            drawn = Group(show_instance(info, at), *ribbon_lines(laps, at))
            live.update(drawn, refresh=True)


async def _draw_all(client: Client, selection: Selection) -> None:
    shown: dict[str, InstanceInfo] = {}
    console = console_for_people()
    with Live(console=console, auto_refresh=False) as live:
        async for change in client.watch_instances(selection):
            if change.info is None:
                shown.pop(change.instance_id, None)
            else:
                shown[change.instance_id] = change.info
            at = await client.now()
            latest = sorted(shown.values(), key=lambda info: info.updated_at, reverse=True)
            fitting: Sequence[InstanceInfo] = latest[: max(1, console.height - 3)]
            more = len(latest) - len(fitting)
            drawn = Group(
                table_of(fitting, instance_columns(at)),
                Text(f"and {more:,} more" if more else ""),
            )
            live.update(drawn, refresh=True)
