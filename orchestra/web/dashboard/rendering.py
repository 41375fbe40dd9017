"""How pages are rendered: templates, and what they write of values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse

from orchestra.client.jsonable import jsonable
from orchestra.clock import SystemClock, from_micros
from orchestra.codec import dump_json
from orchestra.schedules import Event, ScheduleInfo
from orchestra.web import csrf
from orchestra.web.dashboard.filters import query_of

__all__ = ["STATIC", "now", "render"]

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"

_VALUE: Final = 4_000
"""How much of a value a page shows."""


def _does(info: ScheduleInfo) -> str:
    action = info.schedule.action
    if isinstance(action, Event):
        return f"sends {action.name} to {action.instance_id}"
    return f"starts {action.name}" + ("" if action.version is None else f" {action.version}")


def _age(at: datetime | None) -> str:
    return "" if at is None else _span(now() - at)


def _span(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _instant(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _json(value: Any) -> str:
    words = dump_json(jsonable(value)).decode()
    return words if len(words) <= _VALUE else f"{words[:_VALUE]}… ({len(words):,} characters)"


def now() -> datetime:
    """Return the time of this machine, for ages."""
    return from_micros(SystemClock().now())


_ENVIRONMENT: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE / "templates"),
    autoescape=True,  # I15
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "age": _age,
    "instant": _instant,
    "json": _json,
    "id": _quoted,
    "does": _does,
}


def render(request: Request, template: str, /, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page."""
    base: str = request.scope.get("root_path", "")
    body = _ENVIRONMENT.get_template(template).render(
        base=base, query=dict(request.query_params), with_query=query_of, **values
    )
    return csrf.page(request, body, status)
