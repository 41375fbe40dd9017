"""A service without an event loop of its own, as Flask and Django applications are: a WSGI
application of the standard library.

    python examples/wsgi_service.py [DATABASE] [PORT]

    curl -X POST localhost:8000/orders/o-1 -d '{"items": 2}'    # starts an order; the same id again is the same order
    curl -X POST localhost:8000/orders/o-1/paid                 # tells it that it was paid
    curl localhost:8000/orders/o-1                              # how it stands

Views run in threads, and call the client through ``orchestra.sync``. Here the runtime runs in the
same process. Servers that fork their workers (gunicorn, Celery) connect in each worker, after the
fork: a connection does not survive a fork. In Flask make the connection where you make the
application, in Django in ``AppConfig.ready``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orchestra
from orchestra import (
    InstanceCompleted,
    InstanceNotFound,
    OrchestrationContext,
    OrchestrationRegistry,
    Runtime,
    SqliteProvider,
    activity,
)


@dataclass(frozen=True)
class Order:
    """What was ordered."""

    items: int


@activity(timeout=timedelta(seconds=30))
def ship(items: int) -> str:
    """Send the parcel: blocking code, which runs in a thread."""
    return f"{items} items are on their way"


async def order(ctx: OrchestrationContext, state: Order) -> str:
    """Wait for the payment, however long it takes, and ship."""
    ctx.set_custom_status("waits for its payment")
    await ctx.wait_for_event("paid")
    return await ctx.schedule_activity(ship, state.items)


REGISTRY = OrchestrationRegistry.builder().register("order", order).build()


class Application:
    """The views, as in a framework."""

    def __init__(self, sync: orchestra.sync.Connection) -> None:
        self._sync = sync

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request, in a thread of the server."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].strip("/").split("/")
        try:
            match method, path:
                case "POST", ["orders", order_id]:
                    size = int(environ.get("CONTENT_LENGTH") or 0)
                    status, answer = self._start(
                        order_id, json.loads(environ["wsgi.input"].read(size))
                    )
                case "POST", ["orders", order_id, "paid"]:
                    status, answer = self._pay(order_id)
                case "GET", ["orders", order_id]:
                    status, answer = self._show(order_id)
                case _:
                    status, answer = HTTPStatus.NOT_FOUND, {"error": "there is no such page"}
        except InstanceNotFound:
            status, answer = HTTPStatus.NOT_FOUND, {"error": "there is no such order"}
        except InstanceCompleted:
            status, answer = HTTPStatus.CONFLICT, {"error": "the order has ended"}
        except (KeyError, TypeError, ValueError) as error:
            status, answer = HTTPStatus.BAD_REQUEST, {"error": str(error)}
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    def _start(self, order_id: str, body: dict[str, Any]) -> tuple[HTTPStatus, Any]:
        client = self._sync.client
        self._sync.call(
            client.start,
            "order",
            Order(int(body["items"])),
            instance_id=order_id,
            request_id=order_id,
        )
        return HTTPStatus.CREATED, {"order": order_id}

    def _pay(self, order_id: str) -> tuple[HTTPStatus, Any]:
        self._sync.call(
            self._sync.client.raise_event, order_id, "paid", message_id=f"{order_id}/paid"
        )
        return HTTPStatus.ACCEPTED, {"order": order_id}

    def _show(self, order_id: str) -> tuple[HTTPStatus, Any]:
        info = self._sync.call(self._sync.client.get_instance_info, order_id)
        return HTTPStatus.OK, {
            "order": order_id,
            "status": info.status,
            "output": info.output,
            "note": info.custom_status,
        }


class Server(ThreadingMixIn, WSGIServer):
    """A thread for each request."""

    daemon_threads = True


class QuietHandler(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that it has there
        """Say nothing."""


def main(database: str = "orders.db", port: str = "8000") -> None:
    """Serve until Ctrl-C."""
    with (
        orchestra.sync.connect(Runtime(SqliteProvider(database), REGISTRY, [ship])) as sync,
        make_server("127.0.0.1", int(port), Application(sync), Server, QuietHandler) as server,
    ):
        print(f"serving on http://127.0.0.1:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopping", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
