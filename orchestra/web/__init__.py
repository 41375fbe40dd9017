"""The HTTP API of a store, as an ASGI application. It needs the extra ``web``.

::

    app.mount("/orchestra", create_app(runtime.client, auth=who))      # in a service
    orchestra serve --store app.db --port 8080                         # alone
"""

from orchestra.web.access import Auth, Principal, Role
from orchestra.web.app import create_app

__all__ = ["Auth", "Principal", "Role", "create_app"]
