"""Make connections: with timeouts on the wire and on the server, and with the requested
durability.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from weakref import WeakKeyDictionary

import psycopg
from psycopg import conninfo, sql
from psycopg.abc import PQGen

from orchestra.clock import SystemClock
from orchestra.errors import StoreError, StoreUnavailable
from orchestra.providers.postgres.failures import DRIVER_ERRORS, translate
from orchestra.providers.postgres.settings import Settings
from orchestra.providers.postgres.statements import READ_BRANCH

__all__ = ["OLDEST_SERVER", "Connection", "Connector", "read_dsn", "server_description"]

T = TypeVar("T")

OLDEST_SERVER: Final = 130000
_NAME: Final = re.compile(r"@([a-z_]+)")

_WIRE: Final[Mapping[str, str | int]] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""Network settings that end a call to a dead server before a lease is over. The DSN's own values
come first.
"""

_FILES: Final[Mapping[str, str]] = {
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcrl": "PGSSLCRL",
    "sslcrldir": "PGSSLCRLDIR",
    "passfile": "PGPASSFILE",
}
"""Parameters that name files, and the environment variables that replace them."""

_PLANS: Final[Mapping[str, str]] = {
    # Every hot statement finds its rows by key. Outdated statistics (a table that was empty a
    # moment ago) must not turn one into a scan of a million parked instances. No statement is worth
    # planning each time.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "random_page_cost": "1",
    "plan_cache_mode": "force_generic_plan",
}

_DURABLE: Final = ("on", "remote_apply")
_READ_DURABILITY: Final = "SELECT current_setting('fsync'), current_setting('synchronous_commit')"
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_LOOK: Final = 0.1
_MARGIN: Final = 2.0
"""Seconds that an answer may take on the wire, beyond the server's own time."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that does not wait for ever: a peer may acknowledge on the wire and never
    answer.
    """

    patience: float | None = None
    """Seconds that one round trip may take; then the connection is closed. ``None``: no limit."""

    def wait(self, gen: PQGen[T], interval: float = _LOOK, timeout: float | None = None) -> T:
        """Run a conversation with the server.

        Raises:
            psycopg.OperationalError: there was no answer in time; the connection is closed.
        """
        if timeout is not None:  # the driver's own commands, which it can clean up itself
            return super().wait(gen, interval, timeout)
        return super().wait(
            gen if self.patience is None else self._bounded(gen, self.patience), interval
        )

    def converse(self, conversation: PQGen[T]) -> T:
        """Run one round trip of a script."""
        return self.wait(conversation)

    def _bounded(self, conversation: PQGen[T], seconds: float) -> PQGen[T]:
        clock = SystemClock()
        until = clock.monotonic() + seconds
        try:
            wanted = next(conversation)
            while True:
                ready = yield wanted
                if not ready and clock.monotonic() > until:
                    # Keepalives and tcp_user_timeout detect a dead peer, not a silent one. A late
                    # answer must not be taken for the answer to a later call.
                    self.pgconn.finish()
                    raise psycopg.OperationalError(
                        f"no answer within {seconds:g} s; the connection was closed"
                    )
                wanted = conversation.send(ready)
        except StopIteration as end:
            return cast("T", end.value)


def server_description(dsn: str) -> str:
    """Return the address in a DSN, without secrets."""
    values = read_dsn(dsn)
    if values is None:
        return "an unreadable DSN"
    host = (
        values.get("host") or values.get("hostaddr") or values.get("service") or "the default host"
    )
    port = f":{values['port']}" if values.get("port") else ""
    return f"{host}{port}/{values.get('dbname', '')}"


def read_dsn(dsn: str) -> Mapping[str, Any] | None:
    """Return the values of a DSN; ``None``: it cannot be read.

    An unquoted "@" or "/" in a password puts the rest of it into the host, the port or the
    database. Such a DSN counts as unreadable, so the rest is never shown.
    """
    try:
        values = conninfo.conninfo_to_dict(dsn)
    except (psycopg.Error, ValueError):  # the latter: it is not even a text that could be sent
        return None
    shown = f"{values.get('host') or ''}{values.get('dbname') or ''}" if "://" in dsn else ""
    ports = str(values.get("port") or "").split(",")
    return (
        None if "@" in shown or not all(port.isdecimal() or not port for port in ports) else values
    )


def absolute_files(dsn: str) -> dict[str, str]:
    """Return absolute paths for the relative ones in a DSN, or in the environment.

    libpq resolves a relative path at each connect. Later the process may be in another directory,
    where the file is missing, or belongs to another program.
    """
    asked = read_dsn(dsn) or {}
    named = {key: asked.get(key) or os.environ.get(variable) for key, variable in _FILES.items()}
    return {
        key: str(Path(value).absolute())
        for key, value in named.items()
        if value and not Path(value).is_absolute() and (key, value) != ("sslrootcert", "system")
    }


class Connector:
    """Makes connections for one store, with growing pauses while the server does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        self._pause = 0.0
        self._next = 0.0
        self._prepared: WeakKeyDictionary[Connection, dict[bytes, bytes]] = WeakKeyDictionary()
        self._files = absolute_files(settings.dsn)
        self.connection_type: type[Connection] = Connection
        self.quoted_schema: str = sql.Identifier(settings.schema).as_string(None)
        self.description: str = (
            f"PostgreSQL store {settings.schema!r} at {server_description(settings.dsn)}"
        )
        self.render: Callable[[str], bytes] = lru_cache(maxsize=None)(self._render)
        """Return a statement for this store: each name after an ``@`` becomes a name of the store's
        schema.
        """

    def connect_soon(self, *, planned: bool = False) -> Connection:
        """Do the same as :meth:`connect`, but refuse at once if the server has just not answered.
        The pauses grow, so nodes do not storm a returning server.
        """
        if self._clock.monotonic() < self._next:
            raise StoreUnavailable(f"{self.description}: it did not answer a moment ago")
        try:
            connection = self.connect(planned=planned)
        except StoreError:
            self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
            self._next = self._clock.monotonic() + self._pause
            raise
        self._pause = 0.0
        return connection

    def connect(self, *, planned: bool = False) -> Connection:
        """Return a configured connection. ``planned``: it runs the hot statements.

        Raises:
            StoreUnavailable: the server cannot be reached, or lacks the requested durability.
        """
        try:
            connection = self._connect()
            try:
                self._configure(connection, planned=planned)
            except BaseException:
                connection.close()
                raise
        except DRIVER_ERRORS as error:
            failure = translate(error, self.description)
            if not failure.retryable:
                raise StoreUnavailable(str(failure)) from error
            raise failure from error
        return connection

    def setup(self, *, planned: bool, local: bool) -> tuple[bytes, list[str]]:
        """Return the statement that sets timeouts and durability, for a session or for one
        transaction.
        """
        settings = self._session_settings(planned=planned)
        calls = [
            f"set_config('{name}', ${number}, {local})" for number, name in enumerate(settings, 1)
        ]
        if self._settings.durability == "full":
            wanted = (
                "CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN "
                "'remote_apply' ELSE 'on' END"
            )
        else:
            wanted = "'off'"
        calls.append(f"set_config('synchronous_commit', {wanted}, {local})")
        return f"SELECT {', '.join(calls)}".encode(), list(settings.values())

    def _connect(self) -> Connection:
        asked = conninfo.conninfo_to_dict(self._settings.dsn)
        wire = {
            **_WIRE,
            "connect_timeout": max(2, round(self._settings.connect_seconds)),
            "application_name": "orchestra",
        }
        connection = self.connection_type.connect(
            self._settings.dsn,
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=psycopg.RawCursor,
            **cast(
                "dict[str, Any]",
                {key: value for key, value in wire.items() if key not in asked} | self._files,
            ),
        )
        connection.patience = self._settings.statement_seconds + _MARGIN
        if not self._settings.pooled:
            self._prepared[connection] = {}
        return connection

    @staticmethod
    def branch_of(connection: Connection) -> tuple[Any, ...] | None:
        """Return the identity of the server's history; ``None``: unknown."""
        with suppress(
            *DRIVER_ERRORS
        ):  # not every PostgreSQL service allows the query; a lost connection is noticed elsewhere
            return connection.execute(READ_BRANCH.encode()).fetchone()
        return None

    def prepared_on(self, connection: Connection) -> dict[bytes, bytes] | None:
        """Return the mutable names of a connection's prepared statements; ``None`` behind a
        pooler.
        """
        return self._prepared.get(connection)

    def _configure(self, connection: Connection, *, planned: bool) -> None:
        if connection.info.server_version < OLDEST_SERVER:
            raise StoreUnavailable(f"{self.description}: PostgreSQL 13 or later is needed")
        if connection.info.parameter_status("server_encoding") != "UTF8":
            raise StoreUnavailable(f"{self.description}: the encoding of the database must be UTF8")
        if connection.info.parameter_status("client_encoding") != "UTF8":
            connection.execute("SET client_encoding TO 'UTF8'")
        with connection.transaction():
            # Behind a pooler this only checks the settings: there each transaction sets them again.
            connection.execute(*self.setup(planned=planned, local=self._settings.pooled))
            shown = connection.execute(_READ_DURABILITY).fetchone()
        if self._settings.durability == "full" and (
            shown is None or shown[0] != "on" or shown[1] not in _DURABLE
        ):
            raise StoreUnavailable(
                f"{self.description}: the server runs with (fsync, synchronous_commit) = "
                f"{shown}; an acknowledged commit could be lost (I13). Switch both on, or ask "
                "for durability='relaxed'"
            )

    def _session_settings(self, *, planned: bool) -> dict[str, str]:
        settings = self._settings
        return {
            "statement_timeout": _milliseconds(settings.statement_seconds),
            "lock_timeout": _milliseconds(settings.lock_seconds),
            "idle_in_transaction_session_timeout": _milliseconds(settings.statement_seconds),
            "default_transaction_isolation": "read committed",
            # No statement runs long enough to be worth compiling. A wrong estimate would have the
            # read of one instance compiled, which takes hundreds of times as long as the read.
            "jit": "off",
            **(_PLANS if planned else {}),
        }

    def _render(self, statement: str) -> bytes:
        return _NAME.sub(lambda found: f"{self.quoted_schema}.{found[1]}", statement).encode()


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))
