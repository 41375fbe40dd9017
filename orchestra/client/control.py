"""Operators' control of instances: hold and release them, and go back to a former lap."""

from __future__ import annotations

from collections.abc import Mapping

from orchestra.client.access import Access
from orchestra.client.arguments import (
    check_author,
    check_choice,
    check_id,
    check_number,
    check_reason,
    check_text,
)
from orchestra.client.info import RewindInfo
from orchestra.clock import new_id
from orchestra.errors import InvalidArgument
from orchestra.ids import MOST_LABELS, check_label_changes
from orchestra.operations.hold import hold, release
from orchestra.operations.lookup import not_found
from orchestra.operations.rewind import OnRewind, Rewinding, rewind
from orchestra.store.instances import hold_in_force, shown_hold
from orchestra.telemetry import engine_logger
from orchestra.versions import parse_version

__all__ = ["Control"]


class Control:
    """Performs operators' commands that change what an instance does next."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def hold(self, instance_id: str, reason: str, by: str) -> None:
        """Pause an instance; see :meth:`Client.hold`."""
        check_id(instance_id)
        check_reason(reason)
        check_author(by)
        access = self._access
        who = by or access.name
        held = await access.perform(
            hold(instance_id, access.provider.library, by=who, reason=reason)
        )
        if held is not None:
            access.recorder.held_by_operator(held.execution.name, held.execution.version)
            access.port.written_past()
            engine_logger.info(
                "%s holds instance %r: %s", who, instance_id, reason or "no reason given"
            )

    async def release(self, instance_id: str, reason: str, by: str) -> None:
        """End the hold of an instance; see :meth:`Client.release`."""
        check_id(instance_id)
        check_reason(reason)
        check_author(by)
        access = self._access
        who = by or access.name
        record = await access.perform(
            release(instance_id, access.provider.library, by=who, reason=reason)
        )
        if record is None:
            return
        row, execution = record.row, record.execution
        held = hold_in_force(row.hold, row.operator_hold, paused=row.paused)
        if held is not None:
            access.recorder.released(execution.name, execution.version, shown_hold(held))
        access.port.written_past()
        engine_logger.info("%s has released instance %r", who, instance_id)

    async def set_labels(
        self, instance_id: str, labels: Mapping[str, str | None], reason: str, by: str
    ) -> Mapping[str, str]:
        """Change the labels of an instance; see :meth:`Client.set_labels`."""
        check_id(instance_id)
        changes = check_label_changes(labels)
        check_reason(reason)
        check_author(by)
        access = self._access
        admin = access.provider.admin
        outcome = await access.port.call(
            lambda: admin.set_labels(instance_id, changes, by=by or access.name, reason=reason)
        )
        if outcome is None:
            raise not_found(instance_id)
        if outcome.too_many:
            raise InvalidArgument(
                f"instance {instance_id!r} would have more than {MOST_LABELS} labels; remove some "
                "with None"
            )
        access.provider.stream_hints.changed()  # it was no commit
        return outcome.labels

    async def rewind(
        self,
        instance_id: str,
        execution_id: int,
        *,
        version: str | None,
        pin: bool,
        children: OnRewind,
        reason: str,
        by: str,
        request_id: str | None,
    ) -> RewindInfo:
        """Begin a former execution again; see :meth:`Client.rewind`."""
        check_id(instance_id)
        check_number(execution_id, "execution_id")
        check_choice(children, "children", ("abandon", "cancel"))
        check_reason(reason)
        check_author(by)
        check_text(request_id, "a request id")
        access = self._access
        asked = Rewinding(
            instance_id,
            execution_id,
            None if version is None else str(parse_version(version)),
            pin,
            children,
            by or access.name,
            reason,
            request_id or new_id(),
            new_id(),
        )
        done = await access.perform(rewind(asked, access.provider.library))
        access.port.written_past()
        if not done.is_repeated:
            engine_logger.info(
                "%s has rewound instance %r to execution %d: execution %d runs version %s, and %d "
                "events are unread again: %s",
                asked.by,
                instance_id,
                execution_id,
                done.execution,
                done.version,
                done.restored,
                reason or "no reason given",
            )
        return RewindInfo(instance_id, done.execution, done.version, done.restored, done.lost)
