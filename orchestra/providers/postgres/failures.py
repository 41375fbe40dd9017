"""PostgreSQL's errors as the library's: classified by SQLSTATE, never by text, and kept as
``__cause__``.
"""

from __future__ import annotations

import struct
from typing import Final

import psycopg

from orchestra.errors import (
    SchemaMismatch,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

__all__ = ["DRIVER_ERRORS", "connection_lost", "contended", "translate"]

DRIVER_ERRORS: Final = (psycopg.Error, ValueError, OverflowError, struct.error)
"""The last three come from values that no database can hold (lone surrogates, integers beyond 64
bits).
"""

_CONTENDED: Final = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "55P03",  # lock_not_available: lock_timeout
    }
)

_ERRORS: Final[dict[str, type[StoreError]]] = {
    **dict.fromkeys(_CONTENDED, StoreBusy),
    "57014": StoreBusy,  # query_canceled: statement_timeout
    # read_only_sql_transaction: a standby, or default_transaction_read_only
    "25006": StoreReadOnly,
    "42501": StoreReadOnly,  # insufficient_privilege
    "53100": StoreFull,  # disk_full
    "25P03": StoreUnavailable,  # idle_in_transaction_session_timeout
    "25P04": StoreUnavailable,  # transaction_timeout
    # invalid_sql_statement_name: a pooler is in between, and `pooled` was not said
    "26000": StoreUnavailable,
    "42P05": StoreUnavailable,  # duplicate_prepared_statement: the same
    "3D000": StoreUnavailable,  # invalid_catalog_name
    "3F000": SchemaMismatch,  # invalid_schema_name
    "42P01": SchemaMismatch,  # undefined_table
    "42703": SchemaMismatch,  # undefined_column
    "42883": SchemaMismatch,  # undefined_function
    "42804": SchemaMismatch,  # datatype_mismatch
    "XX001": StoreCorrupt,  # data_corrupted
    "XX002": StoreCorrupt,  # index_corrupted
}

_ERRORS_OF_CLASS: Final[dict[str, type[StoreError]]] = {
    "08": StoreUnavailable,  # connection exceptions
    "28": StoreUnavailable,  # invalid authorization
    "40": StoreBusy,  # transaction rollback
    "53": StoreUnavailable,  # insufficient resources
    "57": StoreUnavailable,  # operator intervention: shutting down, starting up, terminated
    "58": StoreUnavailable,  # system errors: input and output
    "F0": StoreUnavailable,  # configuration file
}

_REMEDIES: Final = {
    "25006": (
        "the server, or the session, takes no writes: connect to the primary "
        "(target_session_attrs=read-write)"
    ),
    "42501": (
        "the role may not do this: give it the privileges of a worker (`orchestra grants --worker "
        "ROLE`), or write through a process that has them; tables are made by the schema's owner "
        "alone, others say migrate=False"
    ),
}


def translate(error: Exception, description: str) -> StoreError:
    """Translate an error of the driver. Unknown errors are not retryable."""
    state = sqlstate(error)
    if state is not None:
        kind = _ERRORS.get(state) or _ERRORS_OF_CLASS.get(state[:2], StoreError)
    elif isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        kind = StoreUnavailable  # the connection was lost, or never made
    else:
        kind = StoreError
    remedy = f"; {_REMEDIES[state]}" if state in _REMEDIES else ""
    return kind(f"{description}: {str(error).strip()} ({state or type(error).__name__}){remedy}")


def sqlstate(error: Exception) -> str | None:
    """Return the server's code of an error, if it came from the server."""
    return error.sqlstate if isinstance(error, psycopg.Error) else None


def contended(error: Exception) -> bool:
    """Return whether the same transaction may succeed at once: others were in its way, and it was
    rolled back.
    """
    return sqlstate(error) in _CONTENDED


def is_mismatch(error: StoreError) -> bool:
    """Return whether a statement changed another number of rows than it should
    (``statements._exactly``).
    """
    return isinstance(error.__cause__, psycopg.errors.DivisionByZero)


def connection_lost(connection: psycopg.Connection[object]) -> bool:
    """Return whether a connection is broken."""
    return connection.closed or connection.pgconn.status != psycopg.pq.ConnStatus.OK
