"""The dashboard: pages that are rendered on the server, over the calls of the client.

Nothing costs more as a run grows: a page reads a bounded part of each list, and pictures are made
by pure functions of what was read.
"""

from orchestra.web.dashboard.pages import STATIC, pages

__all__ = ["STATIC", "pages"]
