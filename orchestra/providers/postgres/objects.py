"""The objects that the migrations make, read from their text: comparing them needs no scratch
schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["FIND_OBJECTS", "compared", "expected"]

_COMMENT: Final = re.compile(r"--[^\n]*")
_TABLE: Final = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?@(\w+)\s*(?=\()", re.IGNORECASE)
_INDEX: Final = re.compile(
    r"CREATE (UNIQUE )?INDEX (?:CONCURRENTLY )?(?:IF NOT EXISTS )?(\w+)\s+ON @(\w+)\s*(?:USING \w+\s*)?(?=\()",
    re.IGNORECASE,
)
_ALTERED: Final = re.compile(
    r"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?@(\w+)\s+(.*)", re.IGNORECASE | re.DOTALL
)
_ADDED: Final = re.compile(r"ADD (?:COLUMN )?(?:IF NOT EXISTS )?(\w+)", re.IGNORECASE)
_REMOVED: Final = re.compile(r"DROP (?:COLUMN )?(?:IF EXISTS )?(\w+)", re.IGNORECASE)
_UNCONSTRAINED: Final = re.compile(r"DROP CONSTRAINT (?:IF EXISTS )?(\w+)", re.IGNORECASE)
_DROPPED: Final = re.compile(r"DROP (TABLE|INDEX) (?:IF EXISTS )?@(\w+)", re.IGNORECASE)
_BODY: Final = re.compile(r"\$\$.*?\$\$", re.DOTALL)
_FUNCTION: Final = re.compile(r"CREATE (?:OR REPLACE )?FUNCTION @(\w+)", re.IGNORECASE)
_TRIGGER: Final = re.compile(
    r"CREATE TRIGGER (\w+)\s+.*?\sON @(\w+)\s.*EXECUTE FUNCTION @(\w+)", re.IGNORECASE | re.DOTALL
)
_KEY: Final = re.compile(r"(?:CONSTRAINT \w+ )?(?:PRIMARY KEY|UNIQUE)\s*(?=\()", re.IGNORECASE)
_NO_COLUMN: Final = frozenset(
    {"CHECK", "CONSTRAINT", "EXCLUDE", "FOREIGN", "LIKE", "PRIMARY", "UNIQUE"}
)
_ORDER: Final = re.compile(r"\s+(?:ASC|DESC|NULLS FIRST|NULLS LAST)\b.*", re.IGNORECASE)

# An object, its definition, and whether it is valid. Keys are named by their columns: the server
# invents their names. An expression in an index is not compared: to read it is to wait for locks on
# the table.
FIND_OBJECTS: Final = """
    SELECT 'table ' || c.relname, '', true
    FROM pg_class c WHERE c.relnamespace = $1::oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION ALL
    SELECT 'column ' || c.relname || '.' || a.attname, '', true
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = $1::oid AND c.relkind IN ('r', 'p')
    UNION ALL
    SELECT CASE WHEN k.oid IS NULL THEN 'index ' || i.relname ELSE 'key ' || made.what END,
        CASE WHEN k.oid IS NULL THEN concat_ws(' ', CASE WHEN x.indisunique THEN 'unique' END, made.what,
            CASE WHEN x.indpred IS NOT NULL THEN 'where' END) ELSE '' END,
        x.indisvalid AND x.indisready
    FROM pg_class c
    JOIN pg_index x ON x.indrelid = c.oid
    JOIN pg_class i ON i.oid = x.indexrelid
    LEFT JOIN pg_constraint k ON k.conindid = i.oid AND k.conrelid = c.oid AND k.contype IN ('p', 'u')
    CROSS JOIN LATERAL (
        SELECT concat(c.relname, ' (', string_agg(
            coalesce(a.attname, 'an expression'), ', ' ORDER BY n), ')') AS what
        FROM generate_series(1, x.indnkeyatts) AS n
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = x.indkey[n - 1] AND a.attnum > 0) AS made
    WHERE c.relnamespace = $1::oid
    UNION ALL
    SELECT 'function ' || p.proname, '', true FROM pg_proc p
    WHERE p.pronamespace = $1::oid AND p.prorettype = 'pg_catalog.trigger'::regtype
    UNION ALL
    SELECT 'trigger ' || t.tgname,
        concat_ws(' ', c.relname, p.proname, CASE WHEN t.tgenabled NOT IN ('O', 'A') THEN 'disabled' END), true
    FROM pg_class c
    JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal
    JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE c.relnamespace = $1::oid"""


def expected(scripts: Iterable[str]) -> dict[str, str]:
    """Return the objects that these scripts make, in the form of :data:`FIND_OBJECTS`."""
    found: dict[str, str] = {}
    for script in scripts:
        for statement in _BODY.sub("", _COMMENT.sub("", script)).split(";"):
            _apply(statement.strip(), found)
    return found


def compared(
    wanted: dict[str, str], found: dict[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the missing, the changed and the additional objects. A table stands for its
    columns.
    """
    return (
        _without_parts(wanted.keys() - found.keys()),
        tuple(sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])),
        _without_parts(found.keys() - wanted.keys()),
    )


def _without_parts(names: set[str]) -> tuple[str, ...]:
    tables = {name.removeprefix("table ") for name in names if name.startswith("table ")}
    return tuple(
        sorted(name for name in names if name.startswith("table ") or _table_of(name) not in tables)
    )


def _table_of(name: str) -> str | None:
    sort, _, what = name.partition(" ")
    return (
        what.partition(".")[0]
        if sort == "column"
        else what.partition(" ")[0]
        if sort == "key"
        else None
    )


def _apply(statement: str, found: dict[str, str]) -> None:
    if made := _TABLE.match(statement):
        table = made[1]
        found[f"table {table}"] = ""
        for part in _parts(statement, made.end()):
            _add_part(table, part, found)
    elif made := _INDEX.match(statement):
        unique, name, table = made.groups()
        rest = statement[made.end() :]
        keys = ", ".join(
            "an expression" if "(" in key else _ORDER.sub("", key)
            for key in _parts(statement, made.end())
        )
        words = ["unique"] if unique else []
        words += [f"{table} ({keys})"]
        words += ["where"] if re.search(r"\)\s*WHERE\b", rest, re.IGNORECASE) else []
        found[f"index {name}"] = " ".join(words)
    elif made := _FUNCTION.match(statement):
        found[f"function {made[1]}"] = ""
    elif made := _TRIGGER.match(statement):
        found[f"trigger {made[1]}"] = f"{made[2]} {made[3]}"
    elif altered := _ALTERED.match(statement):
        for part in _split(altered[2]):
            _alter(altered[1], part, found)
    elif dropped := _DROPPED.match(statement):
        sort, name = dropped[1].lower(), dropped[2]
        found.pop(f"{sort} {name}", None)
        if sort == "table":
            for part in [
                each
                for each in found
                if _table_of(each) == name
                or found[each].removeprefix("unique ").startswith(f"{name} (")
            ]:
                del found[part]


def _alter(table: str, part: str, found: dict[str, str]) -> None:
    if added := _ADDED.match(part):
        _add_part(table, part[added.start(1) :], found)
    elif unconstrained := _UNCONSTRAINED.match(part):
        for key in [
            key
            for key in found
            if key.startswith(f"key {table} (") and _server_name(table, key) == unconstrained[1]
        ]:
            del found[key]
    elif removed := _REMOVED.match(part):
        found.pop(f"column {table}.{removed[1]}", None)


def _server_name(table: str, key: str) -> str:
    """Return the name that the server gives to a key's constraint."""
    columns = key.partition("(")[2].rstrip(")").split(", ")
    return "_".join((table, *columns, "key"))


def _add_part(table: str, part: str, found: dict[str, str]) -> None:
    """Add a column or a constraint of a table."""
    if key := _KEY.match(part):
        found[f"key {table} ({', '.join(_parts(part, key.end()))})"] = ""
        return
    name, _, rest = part.partition(" ")
    if name.upper() in _NO_COLUMN:
        return
    found[f"column {table}.{name}"] = ""
    if re.search(r"\b(?:PRIMARY KEY|UNIQUE)\b", rest, re.IGNORECASE):
        found[f"key {table} ({name})"] = ""


def _parts(statement: str, start: int) -> list[str]:
    """Return the parts between a parenthesis and its closing one, split at the commas."""
    depth = 0
    for place in range(start, len(statement)):
        depth += {"(": 1, ")": -1}.get(statement[place], 0)
        if depth == 0:
            return list(_split(statement[start + 1 : place]))
    raise AssertionError(f"a parenthesis is open: {statement}")


def _split(text: str) -> Iterator[str]:
    """Yield the parts between commas outside of parentheses."""
    depth, begin = 0, 0
    for place, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            yield text[begin:place].strip()
            begin = place + 1
    yield text[begin:].strip()
