"""The worker: a service that embeds the runtime. The demo starts it, kills it, and starts it again.

python service.py DATABASE --versions 1.0.0,1.1.0
"""

from __future__ import annotations

import argparse
import logging
import sys

import anyio
import anyio.to_thread
from watches import VERSIONS, build_registry, probe

from orchestra import PlainFormatter, Runtime, SqliteProvider


def write_log() -> None:
    """Log to standard error: every line says which version, instance and lap it is about."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logger = logging.getLogger("orchestra")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


async def serve(database: str, versions: list[str]) -> None:
    """Run instances until standard input ends: when the demo closes it, and also when the demo is
    gone.
    """
    async with Runtime(SqliteProvider(database), build_registry(versions), activities=[probe]):
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.buffer.read)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="Run the watch loops of a database.")
    parser.add_argument("database")
    parser.add_argument(
        "--versions", default=",".join(VERSIONS), help="comma-separated, for instance 1.0.0,1.1.0"
    )
    arguments = parser.parse_args()
    write_log()
    anyio.run(serve, arguments.database, arguments.versions.split(","))


if __name__ == "__main__":
    main()
