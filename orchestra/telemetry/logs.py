"""Log records that say which orchestration, version, instance, execution and attempt they are about.

Records are standard :mod:`logging` records under the logger ``orchestra``. Each carries the attributes ``orchestration``,
``version``, ``instance_id``, ``execution_id``, ``attempt`` and ``fields``, and, where spans are written, ``trace_id`` and
``span_id``. What orchestration code logs is written after its turn is committed, and never again on replay.

::

    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.getLogger("orchestra").addHandler(handler)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from opentelemetry.context import attach, detach
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from orchestra.activities import AMBIENT
from orchestra.telemetry.propagation import context_of

__all__ = ["ContextFilter", "PlainFormatter", "engine_logger", "log_orchestration"]

_ATTRIBUTES: Final = ("orchestration", "version", "instance_id", "execution_id", "attempt", "fields")

orchestration_logger: Final = logging.getLogger("orchestra.orchestration")
engine_logger: Final = logging.getLogger("orchestra.engine")


def log_orchestration(
    level: int,
    message: str,
    fields: Mapping[str, Any],
    *,
    name: str,
    version: str,
    instance_id: str,
    execution_id: int,
    traceparent: str | None = None,
) -> None:
    """Write what orchestration code has said, in the trace of its execution."""
    if orchestration_logger.isEnabledFor(level):
        extra = {
            "orchestration": name,
            "version": version,
            "instance_id": instance_id,
            "execution_id": execution_id,
            "attempt": None,
            "fields": dict(fields),
        }
        # The handlers find the trace where they look for it: in what is current.
        token = None if traceparent is None else attach(context_of(traceparent))
        try:
            # The message is user text and goes in as an argument, so that a per cent sign in it stays one (I15).
            orchestration_logger.log(level, "%s", message, extra=extra)
        finally:
            if token is not None:
                detach(token)


class ContextFilter(logging.Filter):
    """Gives every record that passes a handler the attributes above: from the running activity and span, or ``None``.

    Add it to a handler, so that ordinary ``logging`` calls inside activities are tagged too.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Tag a record; never drops one."""
        if not hasattr(record, "instance_id"):
            context = AMBIENT.get()
            values: dict[str, Any] = dict.fromkeys(_ATTRIBUTES)
            if context is not None:
                values = {
                    "orchestration": context.orchestration,
                    "version": context.version,
                    "instance_id": context.instance_id,
                    "execution_id": context.execution_id,
                    "attempt": context.attempt,
                    "fields": {"activity": context.activity},
                }
            for key, value in values.items():
                setattr(record, key, value)
        span = get_current_span().get_span_context()
        record.trace_id = format_trace_id(span.trace_id) if span.is_valid else None
        record.span_id = format_span_id(span.span_id) if span.is_valid else None
        return True


class PlainFormatter(logging.Formatter):
    """One line a record: ``12:00:01.250 INFO  watch 1.1.0 [watch-1 #42] probed status=200``, a traceback indented below it.

    Control characters in user text are escaped, so that no value can forge a line (I15).
    """

    _filter = ContextFilter()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the traceback below it where there is one."""
        self._filter.filter(record)
        moment = datetime.fromtimestamp(record.created, UTC).astimezone()
        parts = [f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}", f"{record.levelname:<7}", self._subject(record)]
        parts.append(_escape(record.getMessage()))
        fields: Mapping[str, Any] | None = getattr(record, "fields", None)
        parts.extend(f"{_escape(str(key))}={_value(value)}" for key, value in (fields or {}).items())
        line = " ".join(part for part in parts if part)
        if record.exc_info:
            line += _indented(self.formatException(record.exc_info))
        if record.stack_info:
            line += _indented(self.formatStack(record.stack_info))
        return line

    @staticmethod
    def _subject(record: logging.LogRecord) -> str:
        orchestration = getattr(record, "orchestration", None)
        if orchestration is None:
            return record.name
        attempt = getattr(record, "attempt", None)
        tries = f" try {attempt}" if attempt is not None else ""
        instance = _escape(str(getattr(record, "instance_id", "")))
        place = f"[{instance} #{getattr(record, 'execution_id', '')}{tries}]"
        return f"{_escape(str(orchestration))} {getattr(record, 'version', '')} {place}"


def _value(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return repr(text) if not text or any(character.isspace() for character in text) else _escape(text)


def _indented(text: str) -> str:
    return "".join(f"\n    {_escape(line)}" for line in text.splitlines())


def _escape(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
