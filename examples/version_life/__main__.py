"""The life of three versions in production, as an operator sees it.

    python examples/version_life                on a temporary SQLite file; about ten seconds
    python examples/version_life DATABASE       on a new SQLite file, which stays
    DSN=... python examples/version_life        on PostgreSQL, in the new schema SCHEMA or "version_life"

200 loops run on 1.0.0. The check before the deploy refuses a bad 2.0.0. The mended one goes to five
loops by pins, then to all by policy. A broken 3.0.0 holds some of those that cross; the policy and
rewinds lead back. Then 1.0.0 and 3.0.0 are safe to retire, and are removed.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

import anyio
from life import Store, live

from orchestra import SqliteProvider


def sqlite(path: Path) -> Store:
    return lambda: SqliteProvider(path)


def postgres(dsn: str, schema: str) -> Store:
    from orchestra.providers.postgres import PostgresProvider  # noqa: PLC0415 - needs a driver

    return lambda: PostgresProvider(dsn, schema)


def main() -> None:
    dsn, given = os.environ.get("DSN"), sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        if dsn:
            store = postgres(dsn, os.environ.get("SCHEMA", "version_life"))
        else:
            store = sqlite(Path(given[0]) if given else Path(folder) / "digests.db")
        anyio.run(live, store)


if __name__ == "__main__":
    # The log has each error of 3.0.0 with its line. Here the holds are enough to see.
    logging.getLogger("orchestra").addHandler(logging.NullHandler())
    main()
