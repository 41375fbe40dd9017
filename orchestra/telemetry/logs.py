"""Log records with their orchestration, version, instance, execution and attempt.

Records are standard :mod:`logging` records under the logger ``orchestra``. Each carries the
attributes ``orchestration``, ``version``, ``instance_id``, ``execution_id``, ``attempt`` and
``fields``; with spans also ``trace_id`` and ``span_id``. Logs of orchestration code are written
after the turn's commit, and not repeated on replay. The engine's logs about an instance also name
it in the text, for handlers that show only that.

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
from orchestra.errors import shortened
from orchestra.telemetry.propagation import context_of
from orchestra.telemetry.records import Subject

__all__ = [
    "ContextFilter",
    "PlainFormatter",
    "engine_logger",
    "escaped",
    "log_instance",
    "log_orchestration",
    "named",
]

_LONGEST: Final = 16_000
"""The most characters of a message, and of a traceback, in one record."""

_ATTRIBUTES: Final = (
    "orchestration",
    "version",
    "instance_id",
    "execution_id",
    "attempt",
    "fields",
)

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
    """Write a log of orchestration code, in the trace of its execution."""
    if orchestration_logger.isEnabledFor(level):
        extra = {
            "orchestration": name,
            "version": version,
            "instance_id": instance_id,
            "execution_id": execution_id,
            "attempt": None,
            "fields": dict(fields),
        }
        # Handlers look for the trace in the current context.
        token = None if traceparent is None else attach(context_of(traceparent))
        try:
            # The message is user text and goes in as an argument, so that a per cent sign in it
            # stays one (I15).
            orchestration_logger.log(level, "%s", message, extra=extra)
        finally:
            if token is not None:
                detach(token)


def log_instance(
    level: int,
    subject: Subject,
    message: str,
    *args: object,
    error: BaseException | None = None,
    traceparent: str | None = None,
) -> None:
    """Write a log of the engine about one instance. The text begins with its name: ``watch 1.1.0
    [watch-1 #42]``.
    """
    if engine_logger.isEnabledFor(level):
        extra: dict[str, Any] = {
            "orchestration": subject.name,
            "version": subject.version,
            "instance_id": subject.instance_id,
            "execution_id": subject.execution,
            "attempt": None,
            "fields": {},
        }
        token = None if traceparent is None else attach(context_of(traceparent))
        try:
            engine_logger.log(
                level,
                f"%s {message}",
                named(subject),
                *args,
                exc_info=error,
                stacklevel=2,
                extra=extra,
            )
        finally:
            if token is not None:
                detach(token)


def named(subject: Subject) -> str:
    """Return the name of an execution, for a line of text: ``watch 1.1.0 [watch-1 #42]``."""
    return _named(subject.name, subject.version, subject.instance_id, subject.execution)


def _named(
    name: object, version: object, instance_id: object, execution: object, tries: str = ""
) -> str:
    return f"{escaped(str(name))} {version} [{escaped(str(instance_id))} #{execution}{tries}]"


class ContextFilter(logging.Filter):
    """Gives every record that passes a handler the attributes above: from the running activity and
    span, or ``None``.

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
    """One line a record, and a traceback indented below it::

        12:00:01.250 INFO  watch 1.1.0 [watch-1 #42] probed status=200

    Control characters in user text are escaped, so that no value can forge a line (I15).
    """

    _filter = ContextFilter()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the traceback below it where there is one."""
        self._filter.filter(record)
        moment = datetime.fromtimestamp(record.created, UTC).astimezone()
        subject = self._subject(record)
        parts = [
            f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}",
            f"{record.levelname:<7}",
            subject,
        ]
        message = shortened(record.getMessage().removeprefix(f"{subject} "), _LONGEST)
        parts.append(escaped(message))  # the engine's logs begin with it
        fields: Mapping[str, Any] | None = getattr(record, "fields", None)
        parts.extend(
            f"{escaped(str(key))}={_value(value)}" for key, value in (fields or {}).items()
        )
        line = " ".join(part for part in parts if part)
        if record.exc_info:
            line += _indented(_tail(self.formatException(record.exc_info)))
        if record.stack_info:
            line += _indented(self.formatStack(record.stack_info))
        return line

    @staticmethod
    def _subject(record: logging.LogRecord) -> str:
        orchestration = getattr(record, "orchestration", None)
        if orchestration is None:
            return record.name
        attempt = getattr(record, "attempt", None)
        tries = f" attempt {attempt}" if attempt is not None else ""
        version, instance_id = getattr(record, "version", ""), getattr(record, "instance_id", "")
        return _named(
            orchestration, version, instance_id, getattr(record, "execution_id", ""), tries
        )


def _value(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return (
        repr(text) if not text or any(character.isspace() for character in text) else escaped(text)
    )


def _tail(text: str) -> str:
    """Return the end of a traceback, and the beginning of its last lines, which may be a long
    message.
    """
    lines = [shortened(line, _LONGEST // 4) for line in text.splitlines()]
    text = "\n".join(lines)
    return text if len(text) <= _LONGEST else f"...{text[-_LONGEST:]}"


def _indented(text: str) -> str:
    return "".join(f"\n    {escaped(line)}" for line in text.splitlines())


def escaped(text: str) -> str:
    """Escape control characters, so that a text stays within its line (I15)."""
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text
    )
