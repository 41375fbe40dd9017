"""The command and its subcommands."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from orchestra.cli.checks import ExitCode, Report
from orchestra.cli.doctor import examine
from orchestra.cli.histories import export, listed, open_store
from orchestra.cli.registries import (
    check_baseline,
    load_registry,
    read_versions,
    run_preflight,
    write_baseline,
)
from orchestra.cli.rendering import (
    as_json,
    as_text,
    preflight_as_json,
    versions_as_json,
    versions_as_text,
)
from orchestra.clock import SystemClock
from orchestra.errors import InstanceNotFound, InvalidArgument, OrchestraError, StoreCorrupt
from orchestra.providers.sqlite import back_up
from orchestra.telemetry import library_version

__all__ = ["main"]

_SCHEME: Final = "sqlite:///"
_SERVER_SCHEMES: Final = ("postgresql://", "postgres://")
_KEYWORDS: Final = re.compile(
    r"\s*(host|hostaddr|port|dbname|user|password|passfile|service|sslmode)\s*="
)
"""How a DSN of keywords begins. It may hold a password, so it must not be shown as a path."""

_SCHEMA: Final = "orchestra"
_SECRETS: Final = re.compile(r"(\w://)[^\s/]\S*|(\bpassword\s*=).*", re.DOTALL | re.IGNORECASE)

_STORE: Final = (
    "the file; or sqlite:///relative.db, sqlite:////absolute.db; or a DSN, as libpq takes it: "
    "postgresql://USER@HOST/DATABASE (the password best in a password file or PGPASSWORD)"
)

_DOCTOR: Final = """\
Examines a store and reports what is wrong with it: schema, nodes, ownership,
held instances, activities that no node runs, retention, clocks, and the locks
and the integrity of a file. It changes nothing, and services never wait for
it. The log grows while it checks a large file; --quick takes a fraction of the
time. On PostgreSQL a reader's privileges are enough."""

_EXIT_CODES: Final = """\
exit code:
  0  all is well, or there are only notices
  1  warnings
  2  failures
  3  the store cannot be read, or the command was misused"""


_BACKUP: Final = """\
Copies a store as it stands at one moment, while services work on it, and
checks the copy. The copy is a store of its own: a runtime that opens it goes
on at once with the open instances. If the original runs on, both do the same
work. For a store on PostgreSQL this command names the server's own tools."""

_BACKUP_CODES: Final = """\
exit code:
  0  the copy is there, complete and checked
  2  the store is damaged; there is no copy
  3  the store cannot be read, or the copy cannot be written; there is no copy"""

_GRANTS: Final = """\
Prints the SQL that lets roles use a store on PostgreSQL, for psql. The roles
must exist. It may run before the store is made or after, and again. Run it as
a superuser, or as a member of the owner that may create schemas."""

_CHECK: Final = """\
Judges the live instances of a store by code that is about to be deployed:
versions that open executions need and the code lacks, states that do not
migrate to their next version, changed code and shapes, and what would move.
It changes nothing. The registry is imported from the working directory."""

_CHECK_CODES: Final = """\
exit code:
  0  fine, or only warnings and notes
  1  findings
  2  it cannot be checked
  3  the command was misused"""

_VERSIONS: Final = """\
Reports each version of each orchestration: how many instances need it, wait or
are held, what has failed, which nodes have it and with which code, whether it
is the target of the policy, and what keeps it from being retired. It changes
nothing. Its cost does not grow with instances that only wait."""

_VERSIONS_CODES: Final = """\
exit code:
  0  the report was written
  3  the store cannot be read, or the command was misused"""

_SHAPES: Final = """\
Keeps the JSON Schema of each version's input in a file of your repository, and
checks code against it: a released version never changes its shape, and a new
version with an incompatible one needs a migration. It needs no store."""

_HISTORY: Final = """\
Shows the events of one execution of an instance: by default of the current
one. With --export it writes JSON, of all executions unless one is named, for
orchestra.testing.replay_history. It changes nothing."""

_HISTORY_CODES: Final = """\
exit code:
  0  the history was written
  2  there is no such instance
  3  the store cannot be read, or the command was misused"""


@dataclass(frozen=True, slots=True)
class _Server:
    """A store on PostgreSQL. The DSN may hold a password, and is never shown."""

    dsn: str = field(repr=False)


class _Parser(argparse.ArgumentParser):
    """A parser whose exit code for misuse is 3: 2 means that the store has failures."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        harmless = _SECRETS.sub(r"\1\2***", message)
        self.exit(ExitCode.UNREADABLE, f"{self.prog}: {harmless}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return its exit code.

    Raises:
        SystemExit: the arguments ask for help, or make no sense.
    """
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], ExitCode] = options.run
    return run(options)


def _look(options: argparse.Namespace) -> ExitCode:
    store: Path | _Server = options.store
    if isinstance(store, Path):
        _refuse_schema(options)
        report = examine(store, SystemClock(), quick=options.quick)
    else:
        try:
            from orchestra.cli import server_doctor  # noqa: PLC0415 - needs an extra, which a file does not

            schema = server_doctor.schema_name(
                _SCHEMA if options.schema is None else options.schema
            )
        except (ModuleNotFoundError, ValueError) as error:
            sys.stderr.write(f"orchestra doctor: {_shown(str(error))}\n")
            return ExitCode.UNREADABLE
        report = server_doctor.examine_server(store.dsn, schema, SystemClock())
    try:
        _write(report, json=options.json)
    except BrokenPipeError:
        # The reader has closed the pipe. Nothing may be flushed into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return report.exit_code


def _back_up(options: argparse.Namespace) -> ExitCode:
    store: Path | _Server = options.store
    try:
        if isinstance(store, _Server):
            raise InvalidArgument(_server_backup(options.schema or _SCHEMA))
        _refuse_schema(options)
        target: Path | None = options.to
        if target is None:
            _misused(options, "the following arguments are required: --to")
        copy = back_up(store, target, SystemClock())
    except OrchestraError as error:
        sys.stderr.write(f"orchestra backup: {_shown(str(error))}\n")
        return ExitCode.FAILURES if isinstance(error, StoreCorrupt) else ExitCode.UNREADABLE
    text = (
        f"{copy.path}: {copy.size:,} bytes, checked; instances: {copy.instances:,}, of which "
        f"open: {copy.open:,}"
    )
    sys.stdout.write(f"{_shown(text)}\n")
    return ExitCode.FINE


def _show_history(options: argparse.Namespace) -> ExitCode:
    store: Path | _Server = options.store
    if isinstance(store, Path):
        _refuse_schema(options)
    where = store.dsn if isinstance(store, _Server) else store
    try:
        provider = open_store(where, options.schema)
        if options.export:
            sys.stdout.write(f"{export(provider, options.instance, options.execution)}\n")
        else:
            for line in listed(provider, options.instance, options.execution):
                sys.stdout.write(f"{_shown(line)}\n")
        sys.stdout.flush()
    except InstanceNotFound as error:
        sys.stderr.write(f"orchestra history: {_shown(str(error))}\n")
        return ExitCode.FAILURES
    except (ModuleNotFoundError, OrchestraError) as error:
        sys.stderr.write(f"orchestra history: {_shown(str(error))}\n")
        return ExitCode.UNREADABLE
    return ExitCode.FINE


def _check(options: argparse.Namespace) -> ExitCode:
    store: Path | _Server = options.store
    if isinstance(store, Path):
        _refuse_schema(options)
    where = store.dsn if isinstance(store, _Server) else store
    try:
        report = run_preflight(
            open_store(where, options.schema),
            load_registry(options.registry),
            options.name,
            replay=options.replay,
        )
    except (ModuleNotFoundError, OrchestraError) as error:
        sys.stderr.write(f"orchestra check: {_shown(str(error))}\n")
        return ExitCode.FAILURES
    if options.json:
        sys.stdout.buffer.write(preflight_as_json(report))
    else:
        sys.stdout.write(f"{_shown(str(report))}\n")
    return ExitCode.FINE if report.ok else ExitCode.WARNINGS


def _versions(options: argparse.Namespace) -> ExitCode:
    store: Path | _Server = options.store
    if isinstance(store, Path):
        _refuse_schema(options)
    where = store.dsn if isinstance(store, _Server) else store
    try:
        report = read_versions(open_store(where, options.schema), options.name)
    except (ModuleNotFoundError, OrchestraError) as error:
        sys.stderr.write(f"orchestra versions: {_shown(str(error))}\n")
        return ExitCode.UNREADABLE
    if options.json:
        sys.stdout.buffer.write(versions_as_json(report))
    else:
        sys.stdout.write(_shown(versions_as_text(report)))
    sys.stdout.flush()
    return ExitCode.FINE


def _shapes(options: argparse.Namespace) -> ExitCode:
    try:
        registry = load_registry(options.registry)
        if options.write is not None:
            write_baseline(registry, options.write)
            return ExitCode.FINE
        found = check_baseline(registry, options.check)
    except (OSError, OrchestraError) as error:
        sys.stderr.write(f"orchestra shapes: {_shown(str(error))}\n")
        return ExitCode.FAILURES
    for one in found:
        sys.stdout.write(f"{_shown(str(one))}\n")
    return ExitCode.WARNINGS if found else ExitCode.FINE


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
        "a database without the schema (see ops/postgres.md)"
    )


def _refuse_schema(options: argparse.Namespace) -> None:
    if options.schema is not None:
        _misused(options, "--schema is for a store on PostgreSQL")


def _misused(options: argparse.Namespace, text: str) -> NoReturn:
    error: Callable[[str], NoReturn] = options.misused
    error(text)


def _print_grants(options: argparse.Namespace) -> ExitCode:
    try:
        from orchestra.providers.postgres import grants  # noqa: PLC0415 - an extra, which the other commands do not need

        statements = grants(
            options.schema, owner=options.owner, workers=options.worker, readers=options.reader
        )
    except (ModuleNotFoundError, ValueError) as error:
        sys.stderr.write(f"orchestra grants: {_shown(str(error))}\n")
        return ExitCode.UNREADABLE
    sys.stdout.write("".join(f"{statement};\n" for statement in ("BEGIN", *statements, "COMMIT")))
    return ExitCode.FINE


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="orchestra", description="Operate a store.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {library_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    doctor = commands.add_parser(
        "doctor",
        help="report what is wrong with a store",
        description=_DOCTOR,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_store(doctor)
    doctor.set_defaults(run=_look, misused=doctor.error)
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.add_argument("--quick", action="store_true", help="check a file less thoroughly")
    backup = commands.add_parser(
        "backup",
        help="copy a store that is in use",
        description=_BACKUP,
        epilog=_BACKUP_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_store(backup)
    backup.add_argument(
        "--to", type=_file, metavar="PATH", help="the copy, which must not be there yet"
    )
    backup.set_defaults(run=_back_up, misused=backup.error)
    history = commands.add_parser(
        "history",
        help="show the events of an instance, or export them for replays",
        description=_HISTORY,
        epilog=_HISTORY_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    history.add_argument("instance", metavar="INSTANCE", help="the id of the instance")
    _add_store(history)
    history.add_argument(
        "--execution", type=int, metavar="N", help="the number of the execution (lap)"
    )
    history.add_argument("--export", action="store_true", help="write JSON for replays")
    history.set_defaults(run=_show_history, misused=history.error)
    check = commands.add_parser(
        "check",
        help="say what a deploy of a registry would do to the live instances of a store",
        description=_CHECK,
        epilog=_CHECK_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("registry", metavar="MODULE:NAME", help="the registry to be deployed")
    _add_store(check)
    check.add_argument("--name", help="only instances of this orchestration")
    check.add_argument("--replay", action="store_true", help="replay open executions too")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.set_defaults(run=_check, misused=check.error)
    versions = commands.add_parser(
        "versions",
        help="say who needs each version, who has it, and which may be retired",
        description=_VERSIONS,
        epilog=_VERSIONS_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_store(versions)
    versions.add_argument("--name", help="only versions of this orchestration")
    versions.add_argument("--json", action="store_true", help="print one JSON object")
    versions.set_defaults(run=_versions, misused=versions.error)
    shapes = commands.add_parser(
        "shapes",
        help="keep a baseline of the shapes of states, and check code against it",
        description=_SHAPES,
        epilog=_CHECK_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shapes.add_argument("registry", metavar="MODULE:NAME", help="the registry")
    how = shapes.add_mutually_exclusive_group(required=True)
    how.add_argument("--write", type=Path, metavar="FILE", help="write the baseline")
    how.add_argument("--check", type=Path, metavar="FILE", help="check against the baseline")
    shapes.set_defaults(run=_shapes, misused=shapes.error)
    grants = commands.add_parser(
        "grants",
        help="print the SQL that gives roles their rights on PostgreSQL",
        description=_GRANTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_schema(grants, _SCHEMA)
    grants.add_argument(
        "--owner", required=True, metavar="ROLE", help="makes and migrates the schema"
    )
    grants.add_argument(
        "--worker",
        action="append",
        default=[],
        metavar="ROLE",
        help="reads and writes; may be repeated",
    )
    grants.add_argument(
        "--reader", action="append", default=[], metavar="ROLE", help="only reads; may be repeated"
    )
    grants.set_defaults(run=_print_grants)
    return parser


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", required=True, type=_store, metavar="STORE", help=_STORE)
    _add_schema(parser, None)


def _add_schema(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--schema",
        default=default,
        help=f"where on PostgreSQL the store is (default: {_SCHEMA})",
    )


def _store(text: str) -> Path | _Server:
    if text.startswith(_SERVER_SCHEMES) or _KEYWORDS.match(text):
        return _Server(text)
    try:
        return _file(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"{error}, nor a URL that begins with {' or '.join(_SERVER_SCHEMES)}"
        ) from error


def _file(text: str) -> Path:
    path = text.removeprefix(_SCHEME)
    if not path or (path == text and "://" in text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither the path of a file nor {_SCHEME}PATH"
        )
    if "\0" in path:
        raise argparse.ArgumentTypeError("a path holds no NUL")
    return Path(path)


def _write(report: Report, *, json: bool) -> None:
    if json:
        sys.stdout.buffer.write(as_json(report))
    else:
        sys.stdout.write(_shown(as_text(report)))
    sys.stdout.flush()


def _shown(text: str) -> str:
    """Return a text for the terminal, with escapes for characters that it cannot show."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
