"""A client that hides the values of users, for those who may look and not reveal.

Nothing that it does not know is passed on: a new method of the client shows values only once it is
listed here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any, Final

from orchestra.client import Client
from orchestra.client.history import HistoryEvent
from orchestra.client.info import (
    ExecutionInfo,
    Hold,
    InstanceInfo,
    InstancePage,
    PendingActivity,
    UnreadMessage,
)
from orchestra.client.schedules import SchedulePage
from orchestra.client.streams import StreamItem
from orchestra.client.values import Unreadable
from orchestra.client.watching import InstanceChange
from orchestra.errors import ErrorInfo
from orchestra.operations.preflight import PreflightReport
from orchestra.schedules import Event, ScheduleInfo

__all__ = ["HIDDEN", "MaskedClient"]

_WORDS: Final = "hidden: the role 'reveal' shows it"
HIDDEN: Final = Unreadable(_WORDS, 0)
"""Stands for a value of users."""

_PASSED_ON: Final = frozenset({
    "bulk", "cancel", "count_instances", "delete", "drop_messages", "get_version_policy", "hold",
    "list_nodes", "list_operations", "list_streams", "list_version_policies", "now", "nudge", "pin",
    "purge", "raise_event", "release", "request", "rerun", "rewind", "set_labels",
    "set_version_policy", "start", "summarize_store", "terminate", "unpin", "version_report",
    "watch_store",
})  # fmt: skip
"""Methods that return no value that a user has stored. An answer to a request belongs to who
asked.
"""
_SCHEDULES_PASSED_ON: Final = frozenset({"backfill", "delete", "preview", "trigger"})
_PLAIN_DETAILS: Final = frozenset({
    "attempt", "by", "due_at", "execution_id", "heartbeat_timeout", "incarnation", "instance_id",
    "migrations", "name", "node", "on_parent_close", "patch", "queue", "reason", "request_id",
    "requested_at", "retry", "sequence", "source", "status", "timeout", "to", "version",
    "written_by",
})  # fmt: skip
"""The details of a history that are no values of users."""
_TELLING_HOLDS: Final = frozenset({"error", "limit", "migration", "nondeterminism", "state"})
"""Kinds of holds whose detail may quote values."""


class MaskedClient:
    """The client, without the values of users."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.schedules: MaskedSchedules = MaskedSchedules(client)

    def __getattr__(self, name: str) -> Any:
        if name not in _PASSED_ON:
            raise AttributeError(f"{name} may show values of users, and hides none")
        return getattr(self._client, name)

    async def get_instance_info(self, instance_id: str) -> InstanceInfo:
        """Return an instance."""
        return _instance(await self._client.get_instance_info(instance_id))

    async def list_instances(self, *arguments: Any, **options: Any) -> InstancePage:
        """Return a page of instances."""
        page = await self._client.list_instances(*arguments, **options)
        return replace(page, items=tuple(map(_instance, page.items)))

    async def list_executions(self, instance_id: str, **options: int) -> tuple[ExecutionInfo, ...]:
        """Return the laps of an instance."""
        found = await self._client.list_executions(instance_id, **options)
        return tuple(map(_execution, found))

    async def get_history(
        self, instance_id: str, execution_id: int | None = None
    ) -> tuple[HistoryEvent, ...]:
        """Return the events of a lap."""
        return tuple(map(_event, await self._client.get_history(instance_id, execution_id)))

    async def list_messages(self, instance_id: str, **options: int) -> tuple[UnreadMessage, ...]:
        """Return what waits unread."""
        found = await self._client.list_messages(instance_id, **options)
        return tuple(map(_message, found))

    async def preflight(self, *arguments: Any, **options: Any) -> PreflightReport:
        """Judge the live instances."""
        report = await self._client.preflight(*arguments, **options)
        findings = tuple(replace(one, message=_WORDS) for one in report.findings)
        return replace(report, findings=findings)

    async def read_stream(
        self, instance_id: str, name: str, *, after: int = 0, follow: bool = True
    ) -> AsyncGenerator[StreamItem[Any]]:
        """Yield the items of a stream."""
        async for item in self._client.read_stream(instance_id, name, after=after, follow=follow):
            yield replace(item, value=HIDDEN)

    async def watch(self, instance_id: str) -> AsyncGenerator[InstanceInfo]:
        """Yield an instance at each change."""
        async for info in self._client.watch(instance_id):
            yield _instance(info)

    async def watch_instances(
        self, *arguments: Any, **options: Any
    ) -> AsyncGenerator[InstanceChange]:
        """Yield the changes of a list."""
        async for change in self._client.watch_instances(*arguments, **options):
            yield replace(change, info=None if change.info is None else _instance(change.info))


class MaskedSchedules:
    """The schedules, without the values that they send."""

    def __init__(self, client: Client) -> None:
        self._schedules = client.schedules

    def __getattr__(self, name: str) -> Any:
        if name not in _SCHEDULES_PASSED_ON:
            raise AttributeError(f"{name} may show values of users, and hides none")
        return getattr(self._schedules, name)

    async def list(self, *, limit: int = 100, page: str | None = None) -> SchedulePage:
        """Return schedules in the order of their ids."""
        found = await self._schedules.list(limit=limit, page=page)
        return replace(found, items=tuple(map(_schedule, found.items)))

    async def get(self, schedule_id: str) -> ScheduleInfo:
        """Return a schedule."""
        return _schedule(await self._schedules.get(schedule_id))

    async def create(self, *arguments: Any, **options: Any) -> ScheduleInfo:
        """Create a schedule."""
        return _schedule(await self._schedules.create(*arguments, **options))

    async def update(self, *arguments: Any, **options: Any) -> ScheduleInfo:
        """Replace a schedule."""
        return _schedule(await self._schedules.update(*arguments, **options))

    async def pause(self, *arguments: Any, **options: Any) -> ScheduleInfo:
        """Pause a schedule."""
        return _schedule(await self._schedules.pause(*arguments, **options))

    async def resume(self, *arguments: Any, **options: Any) -> ScheduleInfo:
        """End the pause of a schedule."""
        return _schedule(await self._schedules.resume(*arguments, **options))


def _value(value: Any) -> Any:
    return None if value is None else HIDDEN


def _error(error: ErrorInfo | None) -> ErrorInfo | None:
    """Return the type of an error. Its message and its traceback may quote values."""
    return None if error is None else ErrorInfo(error.type, _WORDS)


def _hold(hold: Hold | None) -> Hold | None:
    if hold is None or str(hold.kind) not in _TELLING_HOLDS:
        return hold
    return replace(hold, detail=_WORDS, text=f"{hold.kind}: {_WORDS}")


def _activity(activity: PendingActivity) -> PendingActivity:
    return activity if activity.last_error is None else replace(activity, last_error=_WORDS)


def _instance(info: InstanceInfo) -> InstanceInfo:
    return replace(
        info,
        input=_value(info.input),
        output=_value(info.output),
        custom_status=_value(info.custom_status),
        error=_error(info.error),
        hold=_hold(info.hold),
        pending_activities=tuple(map(_activity, info.pending_activities)),
        children=tuple(replace(child, hold=_hold(child.hold)) for child in info.children),
    )


def _execution(execution: ExecutionInfo) -> ExecutionInfo:
    return replace(
        execution,
        input=_value(execution.input),
        output=_value(execution.output),
        error=_error(execution.error),
    )


def _event(event: HistoryEvent) -> HistoryEvent:
    details: Mapping[str, Any] = {
        name: value if name in _PLAIN_DETAILS else _value(value)
        for name, value in event.details.items()
    }
    return replace(event, details=details)


def _message(message: UnreadMessage) -> UnreadMessage:
    set_aside = None if message.set_aside is None else _WORDS
    return replace(message, payload=_value(message.payload), set_aside=set_aside)


def _schedule(info: ScheduleInfo) -> ScheduleInfo:
    action = info.schedule.action
    shown = (
        replace(action, payload=_value(action.payload))
        if isinstance(action, Event)
        else replace(action, input=_value(action.input))
    )
    return replace(info, schedule=replace(info.schedule, action=shown))
