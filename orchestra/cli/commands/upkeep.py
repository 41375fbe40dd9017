"""``doctor``, ``backup``, ``grants``: the store itself."""

from __future__ import annotations

import re
import shlex
from typing import Final

import click

from orchestra.cli.checks import ExitCode
from orchestra.cli.doctor import examine
from orchestra.cli.output import text, text_of_lines
from orchestra.cli.rendering import as_text, report_values
from orchestra.cli.work import SCHEMA, Work, on_store
from orchestra.clock import SystemClock
from orchestra.errors import InvalidArgument, StoreCorrupt
from orchestra.providers.sqlite import back_up
from orchestra.providers.urls import FileAddress, ServerAddress, parse_url

__all__ = ["backup", "doctor", "grants"]

_DOCTOR_CODES: Final = """\
\b
exit code:
  0  all is well, or there are only notices
  1  warnings
  2  failures
  3  the store cannot be read, or the command was misused"""

_BACKUP_CODES: Final = """\
\b
exit code:
  0  the copy is there, complete and checked
  2  the store is damaged; there is no copy
  3  the store cannot be read, or the copy cannot be written; there is no copy"""


@click.command(epilog=_DOCTOR_CODES)
@click.option("--quick", is_flag=True, help="Check a file less thoroughly.")
@on_store
def doctor(work: Work, *, quick: bool) -> ExitCode:
    """Report what is wrong with a store.

    It examines schema, nodes, ownership, held instances, activities that no node runs, retention,
    clocks, and the locks and the integrity of a file. It changes nothing, and services never wait
    for it. The log grows while it checks a large file; --quick takes a fraction of the time. On
    PostgreSQL a reader's privileges are enough.
    """
    match work.address:
        case FileAddress(path):
            report = examine(path, SystemClock(), quick=quick)
        case ServerAddress(dsn):
            from orchestra.cli import server_doctor  # noqa: PLC0415 - needs an extra, which a file does not

            try:
                schema = server_doctor.schema_name(SCHEMA if work.schema is None else work.schema)
            except ValueError as error:
                raise InvalidArgument(str(error)) from error
            report = server_doctor.examine_server(dsn, schema, SystemClock())
    if work.output.is_for_people:
        work.output.draw(text_of_lines(as_text(report)))
    else:
        work.output.value(report_values(report), lambda: None)
    return report.exit_code


@click.command(epilog=_BACKUP_CODES)
@click.option("--to", "target", metavar="PATH", help="The copy, which must not be there yet.")
@on_store
def backup(work: Work, target: str | None) -> ExitCode:
    """Copy a store that is in use.

    It copies the store as it stands at one moment, while services work on it, and checks the copy.
    The copy is a store of its own: a runtime that opens it goes on at once with the open instances.
    If the original runs on, both do the same work. For a store on PostgreSQL this command names the
    server's own tools.
    """
    address = work.address
    if isinstance(address, ServerAddress):
        raise InvalidArgument(_server_backup(work.schema or SCHEMA))
    if target is None:
        raise click.UsageError("say where the copy goes: --to PATH")
    to = parse_url(target)
    if isinstance(to, ServerAddress):
        raise InvalidArgument("the copy is a file: give its path")
    try:
        copy = back_up(address.path, to.path, SystemClock())
    except StoreCorrupt as error:
        work.output.say(f"orchestra backup: {error}")
        return ExitCode.FAILURES
    line = (
        f"{copy.path}: {copy.size:,} bytes, checked; instances: {copy.instances:,}, of which "
        f"open: {copy.open:,}"
    )
    work.output.value(copy, lambda: text(line))
    return ExitCode.FINE


@click.command()
@click.option("--schema", default=SCHEMA, show_default=True, help="Where the store is.")
@click.option("--owner", required=True, metavar="ROLE", help="Makes and migrates the schema.")
@click.option("--worker", multiple=True, metavar="ROLE", help="Reads and writes; repeatable.")
@click.option("--reader", multiple=True, metavar="ROLE", help="Only reads; repeatable.")
def grants(schema: str, owner: str, worker: tuple[str, ...], reader: tuple[str, ...]) -> None:
    """Print the SQL that lets roles use a store on PostgreSQL, for psql.

    The roles must exist. It may run before the store is made or after, and again. Run it as a
    superuser, or as a member of the owner that may create schemas.
    """
    from orchestra.providers.postgres import grants as granted  # noqa: PLC0415 - an extra, which the other commands do not need

    try:
        statements = granted(schema, owner=owner, workers=worker, readers=reader)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    for statement in ("BEGIN", *statements, "COMMIT"):
        click.echo(f"{statement};")


def _server_backup(schema: str) -> str:
    # A pattern of psql's: quoted, every character stands for itself.
    pattern = (
        schema
        if re.fullmatch(r"[a-z_][a-z0-9_]*", schema)
        else '"' + schema.replace('"', '""') + '"'
    )
    dump = shlex.join(
        ["pg_dump", "--format=custom", f"--schema={pattern}", "--file=FILE", "--dbname=DSN"]
    )
    return (
        "this command copies files only; use the server's tools for a store on PostgreSQL. Base "
        f"backups with archived WAL (pg_basebackup) restore any moment. {dump} takes one "
        "consistent moment beside running nodes, and pg_restore --dbname=DSN FILE restores it into "
        "a database without the schema (see PostgreSQL in the guide)"
    )
