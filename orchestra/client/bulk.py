"""Do one thing to many instances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import anyio

from orchestra.client.access import Access
from orchestra.client.arguments import check_author, check_reason, check_text
from orchestra.client.selecting import QueryMaker, query_maker
from orchestra.client.selections import Selection
from orchestra.client.starts import Starts
from orchestra.clock import new_id
from orchestra.errors import InvalidArgument, OrchestraError, RuntimeClosed, StoreUnavailable
from orchestra.operations.bulk import Bulk, Order, act_on
from orchestra.options import check_kind
from orchestra.store.queries import InstanceRecord
from orchestra.store.queries import Order as ListOrder
from orchestra.versions import parse_version

__all__ = ["BulkFailure", "BulkReport", "Bulks"]

T = TypeVar("T")

_PAGE: Final = 100
"""Instances that are found at once; so many are in memory."""
_AT_ONCE: Final = 16
"""Acts under way: they share the commits of the store."""
_NAMED: Final = 100

_WITH_VERSION: Final = (Bulk.PIN, Bulk.REWIND, Bulk.RERUN)


@dataclass(frozen=True, slots=True)
class BulkFailure:
    """An instance on which the act failed, and the error."""

    instance_id: str
    error: OrchestraError


@dataclass(frozen=True, slots=True)
class BulkReport:
    """What a bulk act did or, in a dry run, would act on.

    Attributes:
        matched: how many instances the selection has had so far.
        changed: how many of them the act has changed.
        skipped: how many had been acted on before, or have ended or gone meanwhile.
        failed: how many could not be acted on.
        sample: the ids of the first hundred that matched.
        failures: the first hundred failures.
    """

    act: Bulk
    dry_run: bool
    matched: int = 0
    changed: int = 0
    skipped: int = 0
    failed: int = 0
    sample: tuple[str, ...] = ()
    failures: tuple[BulkFailure, ...] = ()


@dataclass(slots=True)
class _Tally:
    """The outcomes of a page."""

    changed: int = 0
    skipped: int = 0
    failures: list[BulkFailure] = field(default_factory=list[BulkFailure])


class Bulks:
    """Performs bulk acts."""

    def __init__(self, access: Access, starts: Starts) -> None:
        self._access = access
        self._starts = starts

    async def run(
        self,
        act: Bulk,
        selection: Selection,
        *,
        dry_run: bool,
        reason: str,
        by: str,
        version: str | None,
        request_id: str | None,
        progress: Callable[[BulkReport], None] | None,
    ) -> BulkReport:
        """Act on all instances of a selection; see :meth:`Client.bulk`."""
        make = query_maker(selection)
        order = self._order(act, reason, by, version, request_id, dry_run=dry_run)
        report = BulkReport(order.act, dry_run)
        if dry_run:
            return await self._look(make, report)
        after = ""
        while True:
            records = await self._page(make, after)
            tally = await self._act_on_all(order, records)
            report = replace(
                report,
                matched=report.matched + len(records),
                changed=report.changed + tally.changed,
                skipped=report.skipped + tally.skipped,
                failed=report.failed + len(tally.failures),
                sample=_more(report.sample, [record.row.instance_id for record in records]),
                failures=_more(report.failures, tally.failures),
            )
            if progress is not None:
                progress(report)
            if len(records) < _PAGE:
                return report
            after = records[-1].row.instance_id

    def _order(
        self,
        act: object,
        reason: str,
        by: str,
        version: str | None,
        request_id: str | None,
        *,
        dry_run: object,
    ) -> Order:
        try:
            bulk = Bulk(act)  # pyright: ignore[reportArgumentType] - that is what is checked
        except ValueError:
            raise InvalidArgument(
                f"{act!r} is no bulk act; give one of {', '.join(Bulk)}"
            ) from None
        check_kind(dry_run, "dry_run", bool)
        check_reason(reason)
        check_author(by)
        check_text(request_id, "a request id")
        if bulk is Bulk.PIN and version is None:
            raise InvalidArgument("a bulk pin needs a version; give version='1.2.0'")
        if version is not None and bulk not in _WITH_VERSION:
            raise InvalidArgument(f"a bulk {bulk} takes no version")
        repeats = bulk is Bulk.RERUN or (bulk is Bulk.REWIND and version is None)
        if repeats and request_id is None and not dry_run:
            raise InvalidArgument(
                f"a bulk {bulk} needs a request_id of yours: the same one again goes on with a "
                "job that was cut off, and does nothing twice"
            )
        return Order(
            bulk,
            by or self._access.name,
            reason,
            self._access.provider.library,
            request_id or new_id(),
            None if version is None else str(parse_version(version)),
        )

    async def _look(self, make: QueryMaker, report: BulkReport) -> BulkReport:
        catalogue = await self._access.catalogue(0)
        counted = await self._access.read(
            lambda directory: directory.count(make(catalogue, directory.waiting_routes()))
        )
        records = await self._page(make, "")
        sample = tuple(record.row.instance_id for record in records[:_NAMED])
        return replace(report, matched=counted.total, sample=sample)

    async def _page(self, make: QueryMaker, after: str) -> Sequence[InstanceRecord]:
        """Return the next instances by id. What lives and what is due may have changed since the
        page before.
        """
        catalogue = await self._access.catalogue(0)
        place = (0, after) if after else None
        return await self._access.read(
            lambda directory: directory.list(
                replace(
                    make(catalogue, directory.waiting_routes()),
                    order=ListOrder.ID,
                    limit=_PAGE,
                    after=place,
                )
            )
        )

    async def _act_on_all(self, order: Order, records: Sequence[InstanceRecord]) -> _Tally:
        tally, waiting = _Tally(), list(reversed(records))
        stopped: list[OrchestraError] = []

        async def work() -> None:
            while waiting and not stopped:
                record = waiting.pop()
                try:
                    is_changed = await self._act_on(order, record)
                except (StoreUnavailable, RuntimeClosed) as error:
                    stopped.append(error)  # the others would fail alike
                except OrchestraError as error:
                    tally.failures.append(BulkFailure(record.row.instance_id, error))
                else:
                    tally.changed += is_changed
                    tally.skipped += not is_changed

        async with anyio.create_task_group() as group:
            for _ in range(min(_AT_ONCE, len(records))):
                group.start_soon(work)
        if tally.changed:
            self._access.port.written_past()
        if stopped:
            raise stopped[0]
        return tally

    async def _act_on(self, order: Order, record: InstanceRecord) -> bool:
        if order.act is Bulk.RERUN:
            return await self._rerun(order, record)
        is_changed = await self._access.perform(act_on(order, record))
        if is_changed and order.act is Bulk.TERMINATE:
            self._access.recorder.terminated(record.row.kind.name, record.execution.version)
        return is_changed

    async def _rerun(self, order: Order, record: InstanceRecord) -> bool:
        instance_id, request_id = record.row.instance_id, order.id_for(record)
        existing = await self._access.read(lambda directory: directory.get(request_id))
        if existing is not None:
            return False  # by this job, before it was cut off
        await self._starts.rerun(
            instance_id,
            order.version,
            request_id,
            request_id=request_id,
            by=order.by,
            reason=order.reason,
        )
        return True


def _more(named: tuple[T, ...], further: Sequence[T]) -> tuple[T, ...]:
    return (*named, *further[: _NAMED - len(named)])
