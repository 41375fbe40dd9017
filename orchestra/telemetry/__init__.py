"""Log records, spans and metrics. Each names its orchestration and version.

The library uses the OpenTelemetry *API* only. Without an SDK, :class:`Recorder` records nothing and
costs next to nothing. :func:`recorder_for` decides once.
"""

from orchestra.telemetry.logs import (
    ContextFilter,
    PlainFormatter,
    engine_logger,
    escaped,
    log_instance,
    log_orchestration,
    named,
)
from orchestra.telemetry.open_telemetry import library_version, recorder_for
from orchestra.telemetry.recorder import Attempt, Moment, Recorder
from orchestra.telemetry.records import (
    AsideRecord,
    EndRecord,
    HoldRecord,
    Record,
    RefusedSendRecord,
    RequestsRecord,
    Root,
    Subject,
    TurnRecord,
)

__all__ = [
    "AsideRecord",
    "Attempt",
    "ContextFilter",
    "EndRecord",
    "HoldRecord",
    "Moment",
    "PlainFormatter",
    "Record",
    "Recorder",
    "RefusedSendRecord",
    "RequestsRecord",
    "Root",
    "Subject",
    "TurnRecord",
    "engine_logger",
    "escaped",
    "library_version",
    "log_instance",
    "log_orchestration",
    "named",
    "recorder_for",
]
