"""``nodes``, ``operations``: who works on the store, and what operators did to it."""

from __future__ import annotations

from typing import Final

import click

from orchestra.cli.output import Column, age, instant
from orchestra.cli.work import Work, on_store
from orchestra.client.audit import OperationInfo
from orchestra.client.info import NodeInfo

__all__ = ["nodes", "operations"]


@click.command()
@on_store
def nodes(work: Work) -> None:
    """List the nodes that work on the store, the one that has run longest first."""
    found, at = work.look(lambda client: client.list_nodes())
    columns: list[Column[NodeInfo]] = [
        Column("NODE", lambda node: node.node_id),
        Column("ALIVE", lambda node: "yes" if node.alive else "NO"),
        Column("HOST", lambda node: f"{node.host} ({node.pid})"),
        Column("LIBRARY", lambda node: node.library),
        Column("RUNS FOR", lambda node: age(node.started_at, at), right=True),
        Column("RENEWED", lambda node: f"{age(node.renewed_at, at)} ago", right=True),
        Column("ACTIVITIES", lambda node: f"{node.load} of {node.slots}", right=True),
        Column("OWNS", lambda node: f"{node.owned:,}", right=True),
        Column("QUEUES", lambda node: ", ".join(node.queues)),
    ]
    work.output.records(found, columns, "no node works on this store")


@click.command()
@click.option("--subject", help="The id of an instance, or the name of an orchestration.")
@click.option("--action", help="Such as cancel, rewind, or set policy.")
@click.option("--by", help="Who did it.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--page", help="Where the page before has ended: it says so on stderr.")
@on_store
def operations(
    work: Work,
    subject: str | None,
    action: str | None,
    by: str | None,
    limit: int,
    page: str | None,
) -> None:
    """List what operators did, the newest first."""
    found = work.run(
        lambda client: client.list_operations(
            subject=subject, action=action, by=by, limit=limit, page=page
        )
    )
    work.output.records(found.items, _COLUMNS, "no operator has done anything")
    if found.next_page is not None:
        work.output.say(f"more: --page {found.next_page}")


def _details(operation: OperationInfo) -> str:
    return ", ".join(
        f"{key} {value}" for key, value in operation.details.items() if value not in ("", None)
    )


_COLUMNS: Final[list[Column[OperationInfo]]] = [
    Column("AT", lambda one: instant(one.at)),
    Column("BY", lambda one: one.by),
    Column("ACTION", lambda one: one.action),
    Column("SUBJECT", lambda one: one.subject),
    Column("DETAILS", _details),
]
