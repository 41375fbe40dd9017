"""How pages are rendered: templates, what they write of values, and the same data as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import jinja2
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from orchestra.client.jsonable import jsonable
from orchestra.client.values import Unreadable
from orchestra.codec import dump_json
from orchestra.errors import OrchestraError
from orchestra.schedules import Event, ScheduleInfo
from orchestra.web import csrf
from orchestra.web.access import Principal, Role
from orchestra.web.dashboard.colours import colour_of
from orchestra.web.dashboard.filters import query_of
from orchestra.web.dashboard.wording import duration, instant
from orchestra.web.problems import problem_of

__all__ = ["STATIC", "Page", "base_of", "render"]

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"

_VALUE: Final = 4_000
"""How many characters of a value a page shows."""

_NODE_ID: Final = 32

_SECTIONS: Final = (
    ("", "Overview"),
    ("instances", "Instances"),
    ("held", "Held"),
    ("boundaries", "Boundaries"),
    ("versions", "Versions"),
    ("schedules", "Schedules"),
    ("nodes", "Nodes"),
    ("audit", "Audit"),
)


@dataclass(frozen=True, slots=True)
class Page:
    """What a page is made of.

    Attributes:
        template: the file that writes it.
        at: the store's time, from which ages count.
        values: what the template reads.
        data: its tables by name, which ``?format=json`` returns.
        topics: what the page watches.
        error: why an act was refused, or why there is no such page.
    """

    template: str
    at: datetime
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    topics: Sequence[str] = ()
    error: OrchestraError | None = None

    @property
    def status(self) -> int:
        """The status of the answer: that which the API has for the error."""
        return 200 if self.error is None else problem_of(self.error).status_code


def base_of(request: Request) -> str:
    """Return the path below which the application is mounted."""
    base: str = request.scope.get("root_path", "")
    return base


def render(request: Request, principal: Principal, page: Page) -> Response:
    """Return a page as HTML or, where the query asks for it, its tables as JSON."""
    query = dict(request.query_params)
    if query.get("format") == "json":
        table = query.get("table")
        shown = page.data if table is None else {table: page.data.get(table)}
        return JSONResponse(jsonable({"at": page.at, **shown}), page.status)
    base = base_of(request)
    shared = {
        "base": base,
        "here": request.url.path.removeprefix(base).strip("/").partition("/")[0],
        "sections": _SECTIONS,
        "query": query,
        "said": query.get("said", ""),
        "with_query": query_of,
        "now": page.at,
        "topics": page.topics,
        "principal": principal,
        "may_act": principal.may(Role.OPERATE),
        "is_admin": principal.may(Role.ADMIN),
        "may_reveal": principal.may(Role.REVEAL),
        "error": page.error,
    }
    body = _ENVIRONMENT.get_template(page.template).render({**shared, **page.values})
    return csrf.page(request, body, page.status)


# --- what templates write of values -----------------------------------------------------------


@pass_context
def _ago(context: Context, at: datetime | None) -> Markup:
    """Write an instant as its age, "3 min ago", which the page's script keeps up to date."""
    return _aged(context, at, "age ago", " ago")


@pass_context
def _age(context: Context, at: datetime | None) -> Markup:
    """Write how long ago an instant is, "3 min", which the page's script keeps up to date."""
    return _aged(context, at, "age", "")


def _aged(context: Context, at: datetime | None, kind: str, past: str) -> Markup:
    if at is None:
        return Markup("")
    age: timedelta = context["now"] - at
    words = f"{duration(age)}{past}" if age >= timedelta() else f"in {duration(age)}"
    return Markup('<time class="{}" datetime="{}" title="{}">{}</time>').format(
        kind, at.astimezone(UTC).isoformat(), instant(at), words
    )


def _at(at: datetime | None) -> Markup:
    if at is None:
        return Markup("")
    return Markup('<time datetime="{}">{}</time>').format(
        at.astimezone(UTC).isoformat(), instant(at)
    )


def _json(value: Any, most: int = _VALUE) -> str:
    """Write a value as JSON on one line, or why it is not shown."""
    if isinstance(value, Unreadable):
        return f"({value.reason})"
    words = dump_json(jsonable(value)).decode()
    return words if len(words) <= most else f"{words[:most]}… ({len(words):,} characters)"


def _quoted(of: object) -> str:
    return quote(str(of), safe="")


def _number(of: int) -> str:
    return f"{of:,}"


def _short(name: str) -> Markup:
    """Write the id of a node, which is long, by its end: it begins with the time."""
    is_id = len(name) == _NODE_ID and all(one in "0123456789abcdef" for one in name)
    if not is_id:
        return escape(name)
    return Markup('<span class="id" title="{}">…{}</span>').format(name, name[-8:])


def _does(info: ScheduleInfo) -> str:
    action = info.schedule.action
    if isinstance(action, Event):
        return f"sends {action.name} to {action.instance_id}"
    return f"starts {action.name}" + ("" if action.version is None else f" {action.version}")


_ENVIRONMENT: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE / "templates"),
    autoescape=True,  # I15
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_FILTERS: Final[dict[str, Any]] = {
    "ago": _ago,
    "age": _age,
    "at": _at,
    "colour": colour_of,
    "does": _does,
    "duration": duration,
    "id": _quoted,
    "instant": instant,
    "json": _json,
    "number": _number,
    "short": _short,
}
_ENVIRONMENT.filters.update(_FILTERS)
