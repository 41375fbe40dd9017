"""The dashboard: pages that are rendered on the server, over the calls of the client.

Nothing costs more as a run grows: a page reads a bounded part of each list, and pictures are made
by pure functions of what was read. Each page has a module; each picture has one.
"""

from fastapi import APIRouter

from orchestra.web.dashboard import (
    audit,
    boundaries,
    held,
    instance,
    instances,
    live,
    nodes,
    overview,
    schedules,
    starting,
    versions,
)
from orchestra.web.dashboard.rendering import STATIC

__all__ = ["PAGES", "STATIC"]

PAGES: tuple[APIRouter, ...] = (
    overview.pages,
    instances.pages,
    instance.pages,
    held.pages,
    boundaries.pages,
    versions.pages,
    schedules.pages,
    nodes.pages,
    audit.pages,
    starting.pages,
    live.pages,
)
