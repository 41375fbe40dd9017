"""Which versions instances take: policies of names, and pins of single instances."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from orchestra.client.access import Access
from orchestra.client.arguments import (
    check_author,
    check_id,
    check_name,
    check_number,
    check_policy,
    check_reason,
    check_revision,
)
from orchestra.client.info import PolicyInfo
from orchestra.clock import from_micros, to_micros
from orchestra.errors import PolicyChangedMeanwhile
from orchestra.operations.nudge import nudge
from orchestra.operations.retarget import check_target, follow_policy, pin
from orchestra.options import check_moment
from orchestra.resolution import stored_policy
from orchestra.store.catalogue import PolicyRow
from orchestra.versions import Latest, Policy, parse_version, policy_from_text

__all__ = ["Versions"]


class Versions:
    """Sets policies and pins, and has executions that have not begun follow them."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def set_policy(
        self,
        name: str,
        policy: Policy,
        reason: str,
        by: str,
        expected_revision: int | None,
        *,
        allow_missing: bool,
    ) -> PolicyInfo:
        """Set the policy of a name; see :meth:`Client.set_version_policy`."""
        check_name(name, "an orchestration's name")
        check_policy(policy)
        check_reason(reason)
        check_author(by)
        check_revision(expected_revision)
        access = self._access
        catalogue = await access.catalogue(0)
        if not allow_missing:
            check_target(catalogue, name, policy)
        text, admin = stored_policy(catalogue, policy), access.provider.admin
        outcome = await access.port.call(
            lambda: admin.set_policy(
                name,
                text,
                by=by or access.name,
                reason=reason,
                expected_revision=expected_revision,
            )
        )
        access.forget_catalogue()
        if not outcome.granted:
            raise _changed_meanwhile(name, expected_revision, outcome.row)
        assert outcome.row is not None
        try:
            moved = await self.follow_policy(name)
        finally:
            access.port.written_past()  # now, for this node has them follow as well
        return replace(self._info(outcome.row), moved=moved)

    async def follow_policy(self, name: str) -> int:
        """Let held instances follow the policy of a name; see :meth:`Client.follow_policy`."""
        return await self._access.perform(follow_policy(name, self._access.name))

    async def get_policy(self, name: str) -> PolicyInfo:
        """Return the policy of a name; see :meth:`Client.get_version_policy`."""
        check_name(name, "an orchestration's name")
        rows = await self._access.read(lambda directory: directory.policies(name, 1))
        return self._info(rows[0]) if rows else PolicyInfo(name, Latest(), 0, "", "", None)

    async def list_policies(self, name: str) -> tuple[PolicyInfo, ...]:
        """Return all policies of a name; see :meth:`Client.list_version_policies`."""
        check_name(name, "an orchestration's name")
        rows = await self._access.read(lambda directory: directory.policies(name))
        return tuple(self._info(row) for row in rows)

    def _info(self, row: PolicyRow) -> PolicyInfo:
        policy = policy_from_text(row.value, self._access.provider.library.policies)
        return PolicyInfo(row.name, policy, row.revision, row.by, row.reason, from_micros(row.at))

    async def pin(
        self, instance_id: str, version: str, until: datetime | None, reason: str, by: str
    ) -> None:
        """Tie an instance to a version; see :meth:`Client.pin`."""
        check_id(instance_id)
        parse_version(version)
        check_moment(until, "until", optional=True)
        check_reason(reason)
        check_author(by)
        await self._access.perform(
            pin(
                instance_id,
                version,
                by=by or self._access.name,
                reason=reason,
                until=None if until is None else to_micros(until),
            )
        )

    async def nudge(self, instance_id: str, execution_id: int | None, reason: str, by: str) -> bool:
        """Ask an execution to reach its boundary soon; see :meth:`Client.nudge`."""
        check_id(instance_id)
        if execution_id is not None:
            check_number(execution_id, "execution_id")
        check_reason(reason)
        check_author(by)
        return await self._access.perform(
            nudge(instance_id, execution=execution_id, by=by or self._access.name, reason=reason)
        )

    async def unpin(self, instance_id: str, reason: str, by: str) -> None:
        """Let the policy choose again; see :meth:`Client.unpin`."""
        check_id(instance_id)
        check_reason(reason)
        check_author(by)
        await self._access.perform(
            pin(instance_id, None, by=by or self._access.name, reason=reason)
        )


def _changed_meanwhile(
    name: str, expected: int | None, standing: PolicyRow | None
) -> PolicyChangedMeanwhile:
    if standing is None:
        revision, now = 0, "none was ever set"
    else:
        revision = standing.revision
        now = f"revision {revision}, {standing.value}, was set by {standing.by!r}"
    return PolicyChangedMeanwhile(
        f"the version policy of {name!r} is not at revision {expected}: {now}; read it with "
        f"client.get_version_policy({name!r}), and decide again",
        name=name,
        revision=revision,
    )
