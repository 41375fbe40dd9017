"""Convert a span's identity to its stored W3C form, and back."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ["context_of", "span_context_of", "traceparent_of"]

_FIELD: Final = "traceparent"
_PROPAGATOR: Final = TraceContextTextMapPropagator()


def traceparent_of(span: Span) -> str | None:
    """Return a span's ``traceparent``; ``None`` if it has no identity."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(span, Context()))
    return carrier.get(_FIELD)


def context_of(traceparent: str | None) -> Context:
    """Return a context with the remote span as its current one; an empty one if there is none, or
    it cannot be read.
    """
    found = None if traceparent is None else span_context_of(traceparent)
    return Context() if found is None else set_span_in_context(NonRecordingSpan(found), Context())


@lru_cache(maxsize=4096)  # every turn and activity of an execution reads the same one
def span_context_of(traceparent: str) -> SpanContext | None:
    """Return the identity of a remote span; ``None`` if it cannot be read."""
    found = get_current_span(
        _PROPAGATOR.extract({_FIELD: traceparent}, Context())
    ).get_span_context()
    return found if found.is_valid else None
