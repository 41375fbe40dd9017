"""Providers: the stores. :func:`from_url` returns the one that a text names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestra.providers.urls import from_url

__all__ = ["from_url"]


def __getattr__(name: str) -> Any:
    # Late: who uses one provider imports no other one.
    if name == "from_url":
        from orchestra.providers.urls import from_url  # noqa: PLC0415

        return from_url
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
