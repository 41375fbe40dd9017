"""The store for many machines: PostgreSQL, one schema. Needs the extra ``postgres`` (psycopg 3)."""

from __future__ import annotations

try:
    from orchestra.providers.postgres.provider import PostgresProvider
    from orchestra.providers.postgres.roles import grants
except ModuleNotFoundError as _missing:
    if _missing.name != "psycopg":
        raise
    raise ModuleNotFoundError(
        "PostgreSQL needs psycopg 3: pip install 'orchestra-runtime[postgres]'", name="psycopg"
    ) from _missing

__all__ = ["PostgresProvider", "grants"]
