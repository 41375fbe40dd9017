"""Completion of ids in the shell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import anyio
import click
from click.shell_completion import CompletionItem

from orchestra.cli.rendering import printable
from orchestra.client import Client
from orchestra.providers import from_url

__all__ = ["INSTANCE", "INSTANCES"]

F = TypeVar("F", bound=Callable[..., Any])

_MOST: Final = 50


def _ids(context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the ids that begin so, with what they are; nothing where the store cannot be read."""
    store, schema = context.params.get("store"), context.params.get("schema")
    if not store:
        return []

    async def read() -> list[CompletionItem]:
        async with Client(from_url(store, schema=schema, migrate=False)) as client:
            found = await client.list_instances(id_prefix=begun or None, order_by="id", limit=_MOST)
        return [
            CompletionItem(info.instance_id, help=f"{info.name} {info.version} {info.status.value}")
            for info in found.items
            if printable(info.instance_id) == info.instance_id  # a shell inserts it as it is
        ]

    try:
        return anyio.run(read)
    except Exception:  # noqa: BLE001 - the shell is no place for an error
        return []


def INSTANCE(*, required: bool = True) -> Callable[[F], F]:  # noqa: N802 - a decorator like click's
    """Add the argument that names an instance."""
    return click.argument("instance", required=required, shell_complete=_ids)


INSTANCES: Final = click.argument(
    "instances", nargs=-1, metavar="[INSTANCE]...", shell_complete=_ids
)
"""Adds the argument that names instances."""
