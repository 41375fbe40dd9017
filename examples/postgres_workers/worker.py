"""A worker: a process that runs loops. Start any number, on any number of machines, for one
PostgreSQL.

    DSN=postgresql://app@db.example.com/app python examples/postgres_workers/worker.py

SIGTERM and Ctrl-C stop it in order, and the others take its work over at once. After a `kill -9`
they do within seconds. Needs `pip install 'orchestra-runtime[postgres]' httpx`.
"""

from __future__ import annotations

import logging
import signal

import anyio
from watches import probe, registry, store

from orchestra import PlainFormatter, Runtime


async def main() -> None:
    """Run loops until a signal comes."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with Runtime(store(), registry, activities=[probe]) as runtime:
            print(f"running as {runtime.node_id}; SIGTERM or Ctrl-C stops", flush=True)
            await anext(aiter(signals))
    print("stopped", flush=True)


if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.getLogger("orchestra").addHandler(handler)
    logging.getLogger("orchestra").setLevel(logging.INFO)
    anyio.run(main)
