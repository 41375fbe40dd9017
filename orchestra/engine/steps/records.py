"""What a step tells telemetry. It is made only while a recorder records, and told once the step's
write stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from orchestra.engine.owned import OwnedInstance
from orchestra.events import ExecutionFailed, TerminalEvent
from orchestra.replay import Turn
from orchestra.store.instances import Hold, shown_hold
from orchestra.store.kinds import MessageKind
from orchestra.telemetry import HoldRecord, Moment, RequestsRecord, Root, TurnRecord

__all__ = ["UNOBSERVED", "Observed", "hold_record", "requests_record", "turn_record"]


@dataclass(frozen=True, slots=True)
class Observed:
    """When a turn began, and what is known of the execution that it opens.

    ``begun`` is ``None`` while no recorder records.
    """

    begun: Moment | None
    opened: bool = False
    root: Root | None = None
    previous_version: str | None = None
    migrations: tuple[str, ...] = ()


_SENT: Final = (MessageKind.EVENT, MessageKind.REQUEST)

UNOBSERVED: Final = Observed(None)


def turn_record(
    instance: OwnedInstance, turn: Turn, observed: Observed, ended: Moment, now: int
) -> TurnRecord:
    """Return the record of a turn. Call it before the instance takes in what the turn decided."""
    assert observed.begun is not None
    ending, opened_at = turn.ending, instance.current.opened_at
    traced = [message for message in turn.received if message.traceparent is not None]
    cancelled = set(turn.extras.cancelled)
    entries = (
        instance.attempts.get(number) for number in turn.completed if number not in cancelled
    )
    return TurnRecord(
        subject=instance.identity,
        begun=observed.begun.wall,
        seconds=ended.monotonic - observed.begun.monotonic,
        events=len(turn.events),
        traceparent=instance.current.traceparent,
        opened=observed.opened,
        root=observed.root,
        previous_version=observed.previous_version,
        migrations=observed.migrations,
        messages=tuple(str(message.traceparent) for message in traced if message.kind in _SENT),
        children=tuple(str(message.traceparent) for message in traced if message.kind not in _SENT),
        fired=turn.fired,
        attempts=tuple(
            (activity.event.name, activity.attempt) for activity in entries if activity is not None
        ),
        outcome=None if ending is None else _outcome(ending),
        error=ending.error if isinstance(ending, ExecutionFailed) else None,
        lap_seconds=None
        if ending is None or opened_at is None
        else max(0.0, (now - opened_at) / 1e6),
    )


def requests_record(instance: OwnedInstance, turn: Turn) -> RequestsRecord | None:
    """Return the record of the requests that a turn has received or answered, if there are any."""
    given = tuple(
        (message.name, message.sent_at)
        for message in turn.received
        if message.kind is MessageKind.REQUEST
    )
    answers = turn.extras.answers
    if not given and not answers:
        return None
    assert instance.execution is not None
    requests = instance.execution.commands.requests
    assert requests is not None
    answered = tuple(
        (
            *requests.given[answer.sequence],
            "replied" if answer.rejection is None else "rejected",
        )
        for answer in answers
    )
    return RequestsRecord(instance.identity, given, answered)


def hold_record(instance: OwnedInstance, hold: Hold) -> HoldRecord:
    """Return the record of a hold."""
    return HoldRecord(instance.identity, shown_hold(hold))


def _outcome(ending: TerminalEvent) -> str:
    """Return the end's name: completed, failed, cancelled, terminated or continued_as_new."""
    return ending.kind.name.lower().removeprefix("execution_")
