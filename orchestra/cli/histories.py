"""Histories on the terminal, and exported for replays elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import anyio

from orchestra.client import Client
from orchestra.client.history import HistoryEvent
from orchestra.errors import StoreUnavailable
from orchestra.providers.sqlite import SqliteProvider
from orchestra.store.port import Provider

__all__ = ["export", "listed", "open_store"]


def open_store(store: Path | str, schema: str | None) -> Provider:
    """Return the provider of a file or of a DSN. It never makes or migrates a store.

    Raises:
        ModuleNotFoundError: the DSN needs the extra ``postgres``.
        StoreUnavailable: there is no such file.
    """
    if isinstance(store, Path):
        if not store.is_file():
            raise StoreUnavailable(f"{store}: there is no such file")
        return SqliteProvider(store, migrate=False)
    from orchestra.providers.postgres import PostgresProvider  # noqa: PLC0415 - an extra

    if schema is None:
        return PostgresProvider(store, migrate=False)
    return PostgresProvider(store, schema, migrate=False)


def export(provider: Provider, instance_id: str, execution_id: int | None) -> str:
    """Return the histories of an instance as JSON.

    Raises:
        InstanceNotFound: there is none with this id.
        StoreError: the store cannot be read.
    """

    async def read() -> str:
        async with Client(provider) as client:
            return await client.export_history(instance_id, execution_id)

    return anyio.run(read)


def listed(provider: Provider, instance_id: str, execution_id: int | None) -> Iterable[str]:
    """Return the events of an execution, a line each.

    Raises:
        InstanceNotFound: there is none with this id.
        StoreError: the store cannot be read.
    """

    async def read() -> tuple[HistoryEvent, ...]:
        async with Client(provider) as client:
            return await client.get_history(instance_id, execution_id)

    return [_line(event) for event in anyio.run(read)]


def _line(event: HistoryEvent) -> str:
    details = " ".join(f"{name}={value!r}" for name, value in event.details.items())
    at = event.at.isoformat(timespec="milliseconds")
    return f"{event.event_id:>5}  {at}  {event.kind:<20}  {details}".rstrip()
