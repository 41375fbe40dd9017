"""Spans. Each has explicit times and is written after its commit; none is open across a wait.

An execution is its own trace, unless its start asks it to continue the caller's. Its first turn is
the root. The write that opens the execution stores
the root's ids, so later turns and activities hang below it, on any node and after restarts. It is
linked to the execution before and to the start of the instance. A turn is linked to the events that
it received.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import Token
from dataclasses import dataclass

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from orchestra.clock import Clock
from orchestra.error_info import error_info
from orchestra.errors import ErrorInfo
from orchestra.retry import type_name
from orchestra.store.schedules import FAILED, SlotRow
from orchestra.telemetry import attributes as names
from orchestra.telemetry.propagation import context_of, span_context_of, traceparent_of
from orchestra.telemetry.recorder import Moment
from orchestra.telemetry.records import Root, Subject, TurnRecord

__all__ = ["ActivitySpan", "RootSpan", "Traces"]

_ERROR_TYPE = "error.type"


@dataclass(frozen=True, slots=True)
class RootSpan:
    """The first span of an execution. If its write is refused, it never ends, and so is never
    exported.
    """

    span: Span
    traceparent: str


class Traces:
    """Writes spans with one tracer."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    # --- turns ---

    def open_execution(
        self,
        subject: Subject,
        begun: int,
        previous: str | None,
        origin: str | None,
        *,
        continues: bool = False,
    ) -> Root | None:
        """Begin the first span of an execution, the root of a new trace unless it ``continues`` the
        one of its start; ``None`` if it gets no ids.
        """
        links = [] if continues else [*_links("origin", [origin]), *_links("previous", [previous])]
        span = self._tracer.start_span(
            f"orchestration {subject.name}",
            context=context_of(origin) if continues else Context(),
            kind=SpanKind.INTERNAL,
            attributes=_attributes(subject),
            links=links,
            start_time=begun,
        )
        traceparent = traceparent_of(span)
        return None if traceparent is None else RootSpan(span, traceparent)

    def turn(self, record: TurnRecord) -> None:
        """Write the span of a committed turn."""
        links = [*_links("event", record.messages), *_links("child", record.children)]
        if isinstance(record.root, RootSpan):
            span = record.root.span
            for link in links:
                span.add_link(link.context, link.attributes)
        else:
            span = self._tracer.start_span(
                f"turn {record.subject.name}",
                context=context_of(record.traceparent),
                kind=SpanKind.INTERNAL,
                attributes=_attributes(record.subject),
                links=links,
                start_time=record.begun,
            )
        span.set_attribute(names.EVENTS, record.events)
        if record.migrations:
            span.set_attribute(names.MIGRATIONS, ",".join(record.migrations))
        if record.outcome is not None:
            span.set_attribute(names.OUTCOME, record.outcome)
        if record.error is not None:
            _fail(span, record.error)
        span.end(record.begun + round(record.seconds * 1e9))

    # --- schedules ---

    def begin_tick(self, schedule_id: str, begun: int) -> RootSpan | None:
        """Begin the span of a schedule's tick, the root of a trace; ``None`` if it gets no ids."""
        span = self._tracer.start_span(
            "schedule tick",
            context=Context(),
            kind=SpanKind.PRODUCER,
            attributes={names.SCHEDULE: schedule_id},
            start_time=begun,
        )
        traceparent = traceparent_of(span)
        return None if traceparent is None else RootSpan(span, traceparent)

    @staticmethod
    def end_tick(root: Root, slots: Sequence[SlotRow], ended: int) -> None:
        """Write the span of a tick that was committed."""
        assert isinstance(root, RootSpan)
        outcomes = sorted({slot.outcome for slot in slots})
        root.span.set_attribute(names.OUTCOME, ",".join(outcomes))
        failed = next((slot for slot in slots if slot.outcome == FAILED), None)
        if failed is not None:
            root.span.set_status(Status(StatusCode.ERROR, failed.reason))
        root.span.end(ended)

    # --- activities ---

    def begin_attempt(
        self,
        subject: Subject,
        activity: str,
        number: int,
        traceparent: str | None,
        begun: Moment,
        clock: Clock,
        session: str | None = None,
    ) -> ActivitySpan:
        """Begin the span of an attempt and make it the current one, so that the activity's own
        spans hang below it.
        """
        parent = context_of(traceparent)
        span = self._tracer.start_span(
            f"activity {activity}",
            context=parent,
            kind=SpanKind.INTERNAL,
            attributes={
                **_attributes(subject),
                names.ACTIVITY: activity,
                names.ATTEMPT: number,
                **({} if session is None else {names.SESSION_NODE: session}),
            },
            start_time=begun.wall,
        )
        # Not the current span: the runtime made this task, and the host's span does not belong to
        # the activity.
        return ActivitySpan(span, begun, clock, attach(set_span_in_context(span, parent)))

    # --- clients ---

    def begin_sending(
        self, name: str, attributes: dict[str, AttributeValue]
    ) -> tuple[Span, str | None]:
        """Begin the span of a client's request, below the current one. Return it with the
        ``traceparent`` to send.
        """
        span = self._tracer.start_span(name, kind=SpanKind.PRODUCER, attributes=attributes)
        return span, traceparent_of(span)

    @staticmethod
    def end_sending(span: Span, error: BaseException | None) -> None:
        """End it. A cancelled caller is no error."""
        try:
            if isinstance(error, Exception):
                _fail_with(span, error)
        finally:
            span.end()


@dataclass(frozen=True, slots=True)
class ActivitySpan:
    """The span of a running attempt."""

    span: Span
    begun: Moment
    clock: Clock
    token: Token[Context]

    def end(self, outcome: str, error: BaseException | None) -> None:
        """End the span, and restore the former current one."""
        if (
            get_current_span() is self.span
        ):  # otherwise another task or thread abandons it, with its own context
            detach(self.token)
        ended = self.begun.wall + round((self.clock.monotonic() - self.begun.monotonic) * 1e9)
        try:
            self.span.set_attribute(names.OUTCOME, outcome)
            if error is not None:
                _fail_with(self.span, error)
            elif outcome == "timed_out":
                self.span.set_status(Status(StatusCode.ERROR, outcome))
        finally:
            self.span.end(ended)


def _attributes(subject: Subject) -> dict[str, AttributeValue]:
    return {
        names.NAME: subject.name,
        names.VERSION: subject.version,
        names.INSTANCE: subject.instance_id,
        names.EXECUTION: subject.execution,
    }


def _links(what: str, traceparents: Iterable[str | None]) -> list[Link]:
    found = (
        span_context_of(traceparent) for traceparent in traceparents if traceparent is not None
    )
    return [Link(context, {names.LINK: what}) for context in found if context is not None]


def _fail(span: Span, error: ErrorInfo) -> None:
    span.set_attribute(_ERROR_TYPE, error.type)
    span.set_status(Status(StatusCode.ERROR, str(error)))


def _fail_with(span: Span, error: BaseException) -> None:
    span.set_attribute(_ERROR_TYPE, type_name(type(error)))
    span.set_status(Status(StatusCode.ERROR))
    kept = error_info(error)  # bounded; a driver may quote megabytes
    texts = {"exception.message": kept.message, "exception.stacktrace": kept.traceback or ""}
    span.record_exception(error, attributes=texts)  # last: a user's __str__ may be broken
