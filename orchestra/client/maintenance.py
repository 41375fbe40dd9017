"""Operators' commands that end or delete instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from orchestra.client.access import Access
from orchestra.client.arguments import (
    check_author,
    check_filters,
    check_id,
    check_limit,
    check_reason,
    read_statuses,
)
from orchestra.client.describing import STORED_STATUS
from orchestra.client.info import InstanceStatus, PurgeReport
from orchestra.clock import to_micros
from orchestra.operations.delete import delete, purge
from orchestra.operations.terminate import terminate
from orchestra.options import check_moment
from orchestra.store.queries import InstanceQuery

__all__ = ["Maintenance"]


class Maintenance:
    """Performs operators' commands on instances."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def terminate(self, instance_id: str, reason: str, by: str) -> None:
        """End an instance at once; see :meth:`Client.terminate`."""
        check_id(instance_id)
        check_reason(reason)
        check_author(by)
        access = self._access
        ended = await access.perform(
            terminate(instance_id, reason, by or access.name, access.provider.library)
        )
        if ended is not None:
            self._access.recorder.terminated(ended.row.kind.name, ended.execution.version)

    async def delete(self, instance_id: str, reason: str, by: str) -> None:
        """Delete an ended instance; see :meth:`Client.delete`."""
        check_id(instance_id)
        check_reason(reason)
        check_author(by)
        access = self._access
        await access.perform(
            delete(instance_id, access.provider.library, by=by or access.name, reason=reason)
        )

    async def purge(
        self,
        *,
        completed_before: datetime,
        name: str | None,
        status: InstanceStatus | Sequence[InstanceStatus] | None,
        id_prefix: str | None,
        labels: Mapping[str, str] | None,
        limit: int | None,
        dry_run: bool,
        reason: str,
        by: str,
    ) -> PurgeReport:
        """Delete instances that ended before a moment; see :meth:`Client.purge`."""
        check_reason(reason)
        check_author(by)
        check_filters(
            name=name, version=None, queue=None, id_prefix=id_prefix, parent=None, labels=labels
        )
        check_moment(completed_before, "completed_before")
        if limit is not None:
            check_limit(limit)
        wanted = read_statuses(status)
        ends = [one for one in (InstanceStatus if wanted is None else wanted) if one.is_final]
        if not ends:
            return PurgeReport(dry_run, 0, ())
        query = InstanceQuery(
            name=name,
            statuses=tuple(STORED_STATUS[one] for one in ends),
            id_prefix=id_prefix,
            labels=dict(labels or {}),
        )
        before, access = to_micros(completed_before), self._access
        purged = await access.perform(
            purge(query, before, limit, dry_run=dry_run, by=by or access.name, reason=reason)
        )
        return PurgeReport(dry_run, purged.count, purged.instance_ids)
