"""Reads the live instances of a store for a preflight, a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from orchestra.client.access import Access
from orchestra.client.arguments import check_name, check_registry
from orchestra.context import Limits
from orchestra.operations.preflight import Preflight, PreflightReport
from orchestra.registry import OrchestrationRegistry
from orchestra.store.kinds import Status
from orchestra.store.port import Directory
from orchestra.store.queries import InstanceQuery, InstanceRecord

__all__ = ["preflight"]

_PAGE: Final = 500


async def preflight(
    access: Access,
    registry: OrchestrationRegistry,
    name: str | None,
    *,
    replay: bool,
    progress: Callable[[int], None] | None,
    limits: Limits | None = None,
) -> PreflightReport:
    """Judge the live instances of a store; see :meth:`Client.preflight`."""
    check_registry(registry)
    if name is not None:
        check_name(name, "an orchestration's name")
    judge = Preflight(registry, await access.catalogue(0), limits)
    after: tuple[int, str] | None = None
    done = 0
    while True:
        query = InstanceQuery(name=name, statuses=(Status.OPEN,), limit=_PAGE, after=after)

        def look(directory: Directory, query: InstanceQuery = query) -> Sequence[InstanceRecord]:
            # In the reader's thread: migrations of users run here, and must not stop the host.
            page = directory.list(query)
            for record in page:
                history = (
                    directory.history(record.row.instance_id, record.row.execution)
                    if replay and record.row.opened
                    else ()
                )
                judge.look(record, history)
            return page

        page = await access.read(look)
        done += len(page)
        if progress is not None:
            progress(done)
        if len(page) < _PAGE:
            return judge.report()
        after = page[-1].created_at, page[-1].row.instance_id
