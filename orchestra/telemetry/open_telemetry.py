"""The recorder for OpenTelemetry, and the choice whether to use it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from importlib.metadata import PackageNotFoundError, version
from typing import Concatenate, Final, ParamSpec, TypeVar

from opentelemetry import metrics, trace
from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue

from orchestra.clock import Clock
from orchestra.store.changes import Change
from orchestra.store.schedules import SlotRow
from orchestra.store.snapshots import Snapshot
from orchestra.store.streams import Published
from orchestra.telemetry import attributes as names
from orchestra.telemetry.logs import engine_logger
from orchestra.telemetry.metrics import Metrics
from orchestra.telemetry.recorder import Attempt, Moment, Recorder
from orchestra.telemetry.records import Record, Root, Subject, TurnRecord
from orchestra.telemetry.traces import ActivitySpan, Traces

__all__ = ["OpenTelemetryRecorder", "library_version", "recorder_for"]

P = ParamSpec("P")
R = TypeVar("R")

_SCOPE: Final = "orchestra"
_API: Final = ("opentelemetry.trace", "opentelemetry.metrics")


def recorder_for(
    tracer_provider: trace.TracerProvider | None,
    meter_provider: metrics.MeterProvider | None,
    clock: Clock,
) -> Recorder:
    """Return the recorder for these providers, by default the global ones. If neither records, it
    does nothing.

    The choice is final: providers that are set up later are not found.
    """
    tracer = trace.get_tracer(_SCOPE, library_version(), tracer_provider)
    meter = metrics.get_meter(_SCOPE, library_version(), meter_provider)
    traces = Traces(tracer) if _records(tracer) else None
    measures = Metrics(meter) if _records(meter) else None
    return (
        Recorder()
        if traces is None and measures is None
        else OpenTelemetryRecorder(traces, measures, clock)
    )


def _records(made: object) -> bool:
    """Return whether this is a real provider: not the API's no-op, and not its proxy without an
    SDK.
    """
    return not type(made).__module__.startswith(_API)


@cache
def library_version() -> str:
    """Return the version under which this library is installed."""
    try:
        return version("orchestra-runtime")
    except PackageNotFoundError:
        return "unknown"


class _Guard:
    """Logs errors of exporters and processors, once for each kind."""

    def __init__(self) -> None:
        self._known: set[type[Exception]] = set()

    def complain(self, error: Exception) -> None:
        if type(error) not in self._known:
            self._known.add(type(error))
            engine_logger.warning(
                "telemetry has failed, and its record is lost: %r", error, exc_info=error
            )


def _harmless(
    method: Callable[Concatenate[OpenTelemetryRecorder, P], R],
) -> Callable[Concatenate[OpenTelemetryRecorder, P], R | None]:
    """Keep errors of telemetry away from the engine."""

    @wraps(method)
    def call(self: OpenTelemetryRecorder, *args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - an exporter's fault must not end the engine
            self.guard.complain(error)
            return None

    return call


class OpenTelemetryRecorder(Recorder):
    """Writes spans, metrics, or both."""

    recording = True

    def __init__(self, traces: Traces | None, measures: Metrics | None, clock: Clock) -> None:
        self._traces = traces
        self._metrics = measures
        self._clock = clock
        self.guard: _Guard = _Guard()

    def moment(self) -> Moment:
        return Moment(self._clock.now() * 1000, self._clock.monotonic())

    # --- the engine ---

    @_harmless
    def open_execution(
        self,
        subject: Subject,
        begun: Moment,
        previous: str | None,
        origin: str | None,
        *,
        continues: bool = False,
    ) -> Root | None:
        if self._traces is None:
            return None
        return self._traces.open_execution(
            subject, begun.wall, previous, origin, continues=continues
        )

    @_harmless
    def stands(self, records: Sequence[Record], now: int) -> None:
        for record in records:
            if self._metrics is not None:
                self._metrics.stands(record, now)
            if self._traces is not None and isinstance(record, TurnRecord):
                self._traces.turn(record)

    @_harmless
    def claimed(self, snapshots: Sequence[Snapshot], now: int) -> None:
        if self._metrics is not None:
            for snapshot in snapshots:
                self._metrics.claimed(snapshot, now)

    @_harmless
    def looked_up(self, name: str, version: str, *, warm: bool) -> None:
        if self._metrics is not None:
            self._metrics.looked_up(name, version, warm=warm)

    @_harmless
    def held(self, numbers: Mapping[tuple[str, str], int]) -> None:
        if self._metrics is not None:
            self._metrics.held(numbers)

    @_harmless
    def overdue(self, numbers: Mapping[str, int]) -> None:
        if self._metrics is not None:
            self._metrics.overdue(numbers)

    # --- the cycle ---

    @_harmless
    def committed(self, changes: Sequence[Change], begun: Moment | None) -> None:
        if self._metrics is not None and begun is not None:
            self._metrics.committed(changes, self._clock.monotonic() - begun.monotonic)

    @_harmless
    def published(self, items: Sequence[Published]) -> None:
        if self._metrics is not None:
            self._metrics.published(len(items), sum(len(item.payload.data) for item in items))

    @_harmless
    def publication_refused(self, items: int) -> None:
        if self._metrics is not None:
            self._metrics.publication_refused(items)

    @_harmless
    def store_failed(self) -> None:
        if self._metrics is not None:
            self._metrics.store_failed()

    @_harmless
    def taken_over(self, instances: int) -> None:
        if self._metrics is not None and instances:
            self._metrics.taken_over(instances)

    @_harmless
    def owned(self, instances: int) -> None:
        if self._metrics is not None:
            self._metrics.owned(instances)

    # --- activities ---

    @_harmless
    def begin_attempt(
        self,
        subject: Subject,
        activity: str,
        number: int,
        traceparent: str | None,
        session: str | None = None,
    ) -> Attempt | None:
        begun = self.moment()
        span = None
        if self._traces is not None:
            span = self._traces.begin_attempt(
                subject, activity, number, traceparent, begun, self._clock, session
            )
        if self._metrics is not None:
            self._metrics.running(1)
        return _Attempt(self, subject, activity, begun, span)

    @_harmless
    def end_attempt(self, attempt: _Attempt, outcome: str, error: BaseException | None) -> None:
        """Record the end of an attempt."""
        if self._metrics is not None:
            self._metrics.running(-1)
            seconds = self._clock.monotonic() - attempt.begun.monotonic
            self._metrics.attempt(attempt.subject, attempt.activity, outcome, seconds)
        if attempt.span is not None:
            attempt.span.end(outcome, error)

    # --- clients ---

    def starting(
        self, name: str, version: str, instance_id: str
    ) -> AbstractContextManager[str | None]:
        return self._around(
            f"start {name}", {names.NAME: name, names.VERSION: version, names.INSTANCE: instance_id}
        )

    def sending(self, event: str, instance_id: str) -> AbstractContextManager[str | None]:
        return self._around(f"event {event}", {names.EVENT: event, names.INSTANCE: instance_id})

    def running_schedule(self, schedule_id: str) -> AbstractContextManager[str | None]:
        return self._around("schedule run", {names.SCHEDULE: schedule_id})

    @_harmless
    def ticking(self, schedule_id: str) -> Root | None:
        if self._traces is None:
            return None
        return self._traces.begin_tick(schedule_id, self.moment().wall)

    @_harmless
    def ticked(self, root: Root, slots: Sequence[SlotRow]) -> None:
        if self._traces is not None:
            self._traces.end_tick(root, slots, self.moment().wall)

    @contextmanager
    def _around(self, name: str, attributes: dict[str, AttributeValue]) -> Generator[str | None]:
        begun = self._begin_sending(name, attributes)
        span, traceparent = begun or (None, None)
        try:
            yield traceparent
        except BaseException as error:
            self._end_sending(span, error)
            raise
        self._end_sending(span, None)

    @_harmless
    def _begin_sending(
        self, name: str, attributes: dict[str, AttributeValue]
    ) -> tuple[Span, str | None] | None:
        return None if self._traces is None else self._traces.begin_sending(name, attributes)

    @_harmless
    def _end_sending(self, span: Span | None, error: BaseException | None) -> None:
        if self._traces is not None and span is not None:
            self._traces.end_sending(span, error)

    @_harmless
    def terminated(self, name: str, version: str) -> None:
        if self._metrics is not None:
            self._metrics.ended(name, version, "terminated")

    @_harmless
    def slots(self, slots: Sequence[SlotRow]) -> None:
        if self._metrics is not None:
            self._metrics.slots(slots)

    @_harmless
    def requested(self, name: str) -> None:
        if self._metrics is not None:
            self._metrics.requested(name)

    @_harmless
    def held_by_operator(self, name: str, version: str) -> None:
        if self._metrics is not None:
            self._metrics.held_by_operator(name, version)

    @_harmless
    def released(self, name: str, version: str, reason: str) -> None:
        if self._metrics is not None:
            self._metrics.released(name, version, reason)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A running attempt."""

    recorder: OpenTelemetryRecorder
    subject: Subject
    activity: str
    begun: Moment
    span: ActivitySpan | None

    def end(self, outcome: str, error: BaseException | None = None) -> None:
        self.recorder.end_attempt(self, outcome, error)
