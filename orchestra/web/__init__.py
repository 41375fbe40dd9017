"""The HTTP API of a store, as an ASGI application. It needs the extra ``web``.

::

    app.mount("/orchestra", create_app(runtime.client, auth=who))      # in a service
    orchestra serve --store app.db --port 8080                         # alone
"""

from orchestra.web.app import Auth, create_app

__all__ = ["Auth", "create_app"]
