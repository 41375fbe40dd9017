"""``ls``, ``count``, ``show``, ``history``: what there is, and how it stands."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

import click
from rich.text import Text

from orchestra.cli.completion import INSTANCE
from orchestra.cli.drawings import ribbon_lines, show_instance
from orchestra.cli.output import STATUS_STYLES, Column, age, instant, text
from orchestra.cli.parameters import selection_options
from orchestra.cli.work import Work, on_store, resolve
from orchestra.client import Client
from orchestra.client.history import HistoryEvent
from orchestra.client.info import ExecutionInfo, InstanceInfo
from orchestra.client.jsonable import jsonable
from orchestra.client.selections import InstanceCount, InstanceCounts, OrderBy, Selection
from orchestra.client.summaries import SEARCHED

__all__ = [
    "LAPS",
    "count",
    "history",
    "instance_columns",
    "ls",
    "show",
    "status_text",
    "version_text",
    "waits_text",
]

LAPS: Final = 200
"""How many of the last laps are shown: the cost does not grow with the loop."""


def instance_columns(at: datetime) -> list[Column[InstanceInfo]]:
    """Return the columns of a list of instances."""
    return [
        Column("ID", lambda info: info.instance_id),
        Column("NAME", lambda info: info.name),
        Column("VERSION", version_text),
        Column("STATUS", status_text),
        Column("LAP", lambda info: str(info.execution_id), right=True),
        Column("WAITS FOR", waits_text),
        Column("CHANGED", lambda info: f"{age(info.updated_at, at)} ago", right=True),
    ]


def status_text(info: InstanceInfo) -> Text:
    """Return the status in its colour, with the kind of hold."""
    words = info.status.value
    if info.hold is not None:
        words += f" ({info.hold.kind.value})"
    return text(Text(words, style=STATUS_STYLES.get(info.status, "")))


def version_text(info: InstanceInfo) -> str:
    """Return the version, and the next one if it is another."""
    if info.status.is_final or info.target_version == info.version:
        return info.version
    return f"{info.version} -> {info.target_version}"


def waits_text(info: InstanceInfo) -> str:
    """Return the first thing that it waits for, and how many others there are."""
    if not info.waiting_on:
        return ""
    first = info.waiting_on[0]
    named = first.kind if first.kind == first.name else f"{first.kind} {first.name}"
    if first.until is not None:
        named = f"{first.kind} until {instant(first.until)}"
    others = sum(info.waiting_counts.values()) - 1
    return f"{named} +{others:,}" if others > 0 else named


@click.command()
@selection_options
@click.option(
    "--order-by",
    type=click.Choice([order.value for order in OrderBy]),
    default=OrderBy.NEWEST.value,
    show_default=True,
)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--page", help="Where the page before has ended: it says so on stderr.")
@click.option(
    "--search-limit",
    type=click.IntRange(1),
    default=SEARCHED,
    show_default=True,
    help="Look at so many instances where no index finds those of the selection.",
)
@on_store
def ls(
    work: Work,
    selection: Selection,
    order_by: str,
    limit: int,
    page: str | None,
    search_limit: int,
) -> None:
    """List instances, the newest first."""
    found, at = work.look(
        lambda client: client.list_instances(
            selection, order_by=order_by, limit=limit, page=page, search_limit=search_limit
        )
    )
    searched = "" if found.searched is None else f" among {found.searched:,}"
    work.output.records(found.items, instance_columns(at), f"no instance{searched}")
    if found.searched is not None:
        work.output.say(f"searched {found.searched:,} instances; go on: --page {found.next_page}")
    elif found.next_page is not None:
        work.output.say(f"more: --page {found.next_page}")


@click.command()
@selection_options
@click.option(
    "--by",
    "group_by",
    multiple=True,
    metavar="KEY",
    help="name, version, queue, status, held, or label:KEY; may be repeated.",
)
@click.option("--at-most", type=click.IntRange(1), help="Stop at this number; without --by.")
@on_store
def count(work: Work, selection: Selection, group_by: tuple[str, ...], at_most: int | None) -> None:
    """Count instances, all or by groups. The store counts."""
    counts = work.run(
        lambda client: client.count_instances(selection, group_by=group_by, at_most=at_most)
    )
    if not work.output.is_for_people:
        work.output.value(counts, lambda: None)
        return
    _draw_counts(work, counts, group_by)


def _draw_counts(work: Work, counts: InstanceCounts, group_by: tuple[str, ...]) -> None:
    def of(key: str) -> Column[InstanceCount]:
        return Column(key.upper(), lambda group: _shown(group.values.get(key)))

    columns = [of(key) for key in group_by]
    columns.append(Column("COUNT", lambda group: f"{group.count:,}", right=True))
    head = {key: "total" if key == group_by[0] else "" for key in group_by}
    total = InstanceCount(head, counts.total)
    work.output.records([*counts.groups, total] if group_by else [total], columns, "")


def _shown(value: str | None) -> str:
    return "-" if value is None else value


@click.command()
@INSTANCE()
@on_store
def show(work: Work, instance: str) -> None:
    """Show an instance: its laps, what it waits for, what holds it, and its values.

    INSTANCE is its id, or the beginning of it if no other id begins so.
    """

    async def read(client: Client) -> tuple[InstanceInfo, tuple[ExecutionInfo, ...]]:
        info = await client.get_instance_info(await resolve(client, instance))
        after = max(0, info.execution_id - LAPS)
        return info, await client.list_executions(info.instance_id, after=after, limit=LAPS)

    (info, laps), at = work.look(read)
    if work.output.is_for_people:
        work.output.draw(show_instance(info, at), *ribbon_lines(laps, at))
    else:
        work.output.value({**jsonable(info), "executions": laps}, lambda: None)


@click.command()
@INSTANCE()
@click.option("--execution", type=int, metavar="N", help="The number of the lap.")
@click.option("--export", is_flag=True, help="Write JSON for orchestra.testing.replay_history.")
@on_store
def history(work: Work, instance: str, execution: int | None, *, export: bool) -> None:
    """Show the events of one lap: by default of the current one.

    With --export it writes JSON, of all laps unless one is named, for
    orchestra.testing.replay_history. It changes nothing.
    """
    if export:

        async def read(client: Client) -> str:
            return await client.export_history(await resolve(client, instance), execution)

        work.output.raw(f"{work.run(read)}\n".encode())
        return

    async def events(client: Client) -> tuple[HistoryEvent, ...]:
        return await client.get_history(await resolve(client, instance), execution)

    found = work.run(events)
    if not work.output.is_for_people:
        work.output.values(found)
        return
    for line in _lines(found):
        work.output.draw(text(line))


def _lines(events: tuple[HistoryEvent, ...]) -> Iterator[str]:
    for event in events:
        details = " ".join(f"{name}={value!r}" for name, value in event.details.items())
        at = event.at.isoformat(timespec="milliseconds")
        yield f"{event.event_id:>5}  {at}  {event.kind:<20}  {details}".rstrip()
