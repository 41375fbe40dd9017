"""The rights of a store's roles: an owner migrates the schema, workers read and write rows, readers
read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from psycopg import sql

__all__ = ["grants"]

_LONGEST_NAME: Final = 63
_EVERYBODY: Final = frozenset({"public", "none", "current_role", "current_user", "session_user"})
"""Words that are not names of roles. The first one would give rights to every role that can
connect.
"""

_WORK: Final = sql.SQL("SELECT, INSERT, UPDATE, DELETE")
_LOOK: Final = sql.SQL("SELECT")

_SCHEMA: Final = sql.SQL("CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {owner}")
_ENTER: Final = sql.SQL("GRANT USAGE ON SCHEMA {schema} TO {role}")
_NOW: Final = sql.SQL("GRANT {privileges} ON ALL TABLES IN SCHEMA {schema} TO {role}")
_LATER: Final = sql.SQL(
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} GRANT {privileges} ON TABLES "
    "TO {role}"
)


def grants(
    schema: str = "orchestra",
    *,
    owner: str,
    workers: Iterable[str] = (),
    readers: Iterable[str] = (),
) -> tuple[str, ...]:
    """Return the statements that give existing roles their rights on a store's schema. Every name
    is quoted.

    They may run before the store is made or afterwards, and again: repeating them changes nothing.
    They cover tables of later migrations. Run them as a superuser, or as a member of ``owner`` that
    may create schemas.

    Args:
        owner: makes and migrates the schema: a provider with ``migrate=True``, once for each
            release.
        workers: runtimes, and clients that start or send; with ``migrate=False`` they only verify
            the schema.
        readers: clients that read and wait. Their writes raise ``StoreReadOnly``.

    Raises:
        ValueError: a name is not 1 to 63 bytes long (the server would cut it), or means all roles.
    """
    names = {"schema": sql.Identifier(_checked(schema)), "owner": sql.Identifier(_role(owner))}
    statements: list[sql.Composed] = [_SCHEMA.format(**names)]
    for privileges, roles in ((_WORK, workers), (_LOOK, readers)):
        for role in roles:
            values = {**names, "privileges": privileges, "role": sql.Identifier(_role(role))}
            statements += [template.format(**values) for template in (_ENTER, _NOW, _LATER)]
    return tuple(statement.as_string(None) for statement in statements)


def _role(name: str) -> str:
    if name in _EVERYBODY:
        raise ValueError(f"{name!r} is not the name of a role")
    return _checked(name)


def _checked(name: str) -> str:
    if not name or "\0" in name or len(name.encode()) > _LONGEST_NAME:
        raise ValueError(f"{name!r} cannot be a name: 1 to {_LONGEST_NAME} bytes")
    return name
