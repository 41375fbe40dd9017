"""The attributes of spans and the labels of metrics."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ACTIVITY",
    "ATTEMPT",
    "CACHE_RESULT",
    "EVENT",
    "EVENTS",
    "EXECUTION",
    "FROM_VERSION",
    "HOLD_REASON",
    "INSTANCE",
    "LINK",
    "MIGRATIONS",
    "NAME",
    "OUTCOME",
    "REFUSAL_REASON",
    "REQUEST",
    "SCHEDULE",
    "SESSION_NODE",
    "TO_VERSION",
    "VERSION",
]

NAME: Final = "orchestra.orchestration.name"
VERSION: Final = "orchestra.orchestration.version"
INSTANCE: Final = "orchestra.instance.id"
EXECUTION: Final = "orchestra.execution.id"
ACTIVITY: Final = "orchestra.activity.name"
ATTEMPT: Final = "orchestra.activity.attempt"
SESSION_NODE: Final = "orchestra.session.node"
EVENT: Final = "orchestra.event.name"
REQUEST: Final = "orchestra.request.name"
SCHEDULE: Final = "orchestra.schedule.id"
EVENTS: Final = "orchestra.turn.events"
OUTCOME: Final = "orchestra.outcome"
LINK: Final = "orchestra.link"
FROM_VERSION: Final = "orchestra.upgrade.from"
TO_VERSION: Final = "orchestra.upgrade.to"
HOLD_REASON: Final = "orchestra.hold.reason"
REFUSAL_REASON: Final = "orchestra.refusal.reason"
MIGRATIONS: Final = "orchestra.migration.path"
CACHE_RESULT: Final = "orchestra.cache.result"
