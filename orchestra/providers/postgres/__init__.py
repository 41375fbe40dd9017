"""The store for many machines: PostgreSQL, one schema. Needs the extra ``postgres`` (psycopg 3)."""

from __future__ import annotations

from orchestra.providers.postgres.provider import PostgresProvider

__all__ = ["PostgresProvider"]
