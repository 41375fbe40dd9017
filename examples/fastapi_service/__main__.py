"""Watch loops inside a FastAPI service. One process, one SQLite file, nothing else.

    DATABASE=watches.db PORT=8000 python examples/fastapi_service

    curl -X POST localhost:8000/api/orchestrations -H 'Content-Type: application/json' \
         -d '{"instance_id": "watch-1", "url": "http://example.com", "pause_seconds": 5}'
    curl localhost:8000/api/orchestrations/watch-1 curl -X POST
    localhost:8000/api/orchestrations/watch-1/events -H 'Content-Type: application/json' -d
    '{"name": "stop"}'

SIGTERM and Ctrl-C stop in order: requests end, running probes get a few seconds, and all instances
are released. After a `kill -9` the next start continues from the store. `VERSIONS=1.0.0` runs it as
if 1.1.0 had not been deployed yet.

Needs `pip install 'orchestra-runtime[web]' httpx`. http://localhost:8000/docs shows the whole API,
and http://localhost:8000/orchestra/ the dashboard. If the answer to a request with an
`Idempotency-Key` header is lost, repeat the request: nothing happens twice.
"""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import NoReturn

import uvicorn
from app import create_app
from settings import Settings

from orchestra import PlainFormatter


def write_log() -> None:
    """Log to standard error: every line of the loops names its version, instance and lap."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logger = logging.getLogger("orchestra")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """End the process with 0."""
    sys.exit(0)


def main() -> None:
    """Serve until a signal comes."""
    # uvicorn stops in order and then raises the signal again. An ordered stop must end with 0, not
    # with "killed by SIGTERM".
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    settings = Settings.from_environment()
    write_log()
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        lifespan="on",
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
