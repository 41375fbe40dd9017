"""An agent that talks for years: durable turns, streamed words, tools that a person approves.

    DATABASE=chats.db PORT=8000 python examples/agent_chat

    curl -X POST localhost:8000/chats -H 'Content-Type: application/json' \
         -d '{"user": "ann", "chat_id": "chat-1"}'
    curl -N localhost:8000/chats/chat-1/tokens &
    curl -X POST localhost:8000/chats/chat-1/say -H 'Content-Type: application/json' \
         -d '{"text": "weather Bern"}'

`refund 42` needs an approval: POST {"granted": true, "by": "bob"} to /chats/chat-1/approve. Kill the
process with -9 in the middle of a turn and start it again: the turn goes on, and no model call that
has ended is paid again (MODEL_BILL names a file with the bill). `VERSIONS=1.0.0` runs it as if 2.0.0
had not been deployed yet. Needs `pip install fastapi uvicorn`.
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


def leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """End the process with 0: uvicorn stops in order, and then raises the signal again."""
    sys.exit(0)


def main() -> None:
    """Serve until a signal comes."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.getLogger("orchestra").addHandler(handler)
    logging.getLogger("orchestra").setLevel(logging.INFO)
    settings = Settings.from_environment()
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        lifespan="on",
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
