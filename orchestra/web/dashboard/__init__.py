"""The dashboard: pages that are rendered on the server, over the calls of the client.

Nothing costs more as a run grows: a page reads a bounded part of each list, and pictures are made
by pure functions of what was read.
"""

from fastapi import APIRouter

from orchestra.web.dashboard import pages, schedule_pages
from orchestra.web.dashboard.rendering import STATIC

__all__ = ["PAGES", "STATIC"]

PAGES: tuple[APIRouter, ...] = (pages.pages, schedule_pages.pages)
