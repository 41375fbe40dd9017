"""The command and its subcommands."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from orchestra.cli.checks import ExitCode, Report
from orchestra.cli.doctor import examine
from orchestra.cli.rendering import as_json, as_text
from orchestra.clock import SystemClock
from orchestra.errors import OrchestraError, StoreCorrupt
from orchestra.providers.sqlite import back_up

__all__ = ["main"]

_SCHEME: Final = "sqlite:///"

_DOCTOR: Final = """\
Looks at a store and says what is wrong with it. It changes nothing, and may
be run while services work on the store: they are never made to wait. Only the
log grows while a large file is checked; --quick takes a fraction of the time."""

_EXIT_CODES: Final = """\
exit code:
  0  all is well, or there are only notices
  1  warnings
  2  failures
  3  the store cannot be read, or the command was misused"""


_BACKUP: Final = """\
Copies a store as it stands at one moment, while services work on it. The copy
is checked, and is a store of its own: a runtime that opens it goes on at once
with what was under way. Where the original runs on as well, both do."""

_BACKUP_CODES: Final = """\
exit code:
  0  the copy is there, complete and checked
  2  the store is damaged; there is no copy
  3  the store cannot be read, or the copy not be written; there is no copy"""

_GRANTS: Final = """\
Prints the SQL that lets roles use a store on PostgreSQL, for psql. The roles
must exist. It may run before the store is made or after, and again. Whoever
runs it is a superuser, or a member of the owner who may create schemas."""


class _Parser(argparse.ArgumentParser):
    """A parser with an exit code of its own for misuse: 2 says that the store is not well."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ExitCode.UNREADABLE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return its exit code.

    Raises:
        SystemExit: help was asked for, or the arguments make no sense.
    """
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], ExitCode] = options.run
    return run(options)


def _look(options: argparse.Namespace) -> ExitCode:
    report = examine(options.store, SystemClock(), quick=options.quick)
    try:
        _write(report, json=options.json)
    except BrokenPipeError:
        # Whoever read has seen enough. Nothing may be flushed into the broken pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return report.exit_code


def _back_up(options: argparse.Namespace) -> ExitCode:
    try:
        copy = back_up(options.store, options.to, SystemClock())
    except OrchestraError as error:
        sys.stderr.write(f"orchestra backup: {_shown(str(error))}\n")
        return ExitCode.FAILURES if isinstance(error, StoreCorrupt) else ExitCode.UNREADABLE
    text = f"{copy.path}: {copy.size:,} bytes, checked; instances: {copy.instances:,}, of which open: {copy.open:,}"
    sys.stdout.write(f"{_shown(text)}\n")
    return ExitCode.FINE


def _print_grants(options: argparse.Namespace) -> ExitCode:
    try:
        from orchestra.providers.postgres import grants  # noqa: PLC0415 - an extra, which the other commands do not need

        statements = grants(options.schema, owner=options.owner, workers=options.worker, readers=options.reader)
    except (ModuleNotFoundError, ValueError) as error:
        sys.stderr.write(f"orchestra grants: {_shown(str(error))}\n")
        return ExitCode.UNREADABLE
    sys.stdout.write("".join(f"{statement};\n" for statement in ("BEGIN", *statements, "COMMIT")))
    return ExitCode.FINE


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="orchestra", description="For whoever operates a store.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    doctor = commands.add_parser(
        "doctor",
        help="say what is wrong with a store",
        description=_DOCTOR,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_path(doctor, "--store", "the file; or sqlite:///relative.db, sqlite:////absolute.db")
    doctor.set_defaults(run=_look)
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.add_argument("--quick", action="store_true", help="check the file less thoroughly")
    backup = commands.add_parser(
        "backup",
        help="copy a store that is in use",
        description=_BACKUP,
        epilog=_BACKUP_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_path(backup, "--store", "the file; or sqlite:///relative.db, sqlite:////absolute.db")
    _add_path(backup, "--to", "the copy, which must not be there yet")
    backup.set_defaults(run=_back_up)
    grants = commands.add_parser(
        "grants",
        help="print what roles need on PostgreSQL",
        description=_GRANTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    grants.add_argument("--schema", default="orchestra", help="where the store is (default: orchestra)")
    grants.add_argument("--owner", required=True, metavar="ROLE", help="makes and migrates the schema")
    grants.add_argument("--worker", action="append", default=[], metavar="ROLE", help="reads and writes; may be repeated")
    grants.add_argument("--reader", action="append", default=[], metavar="ROLE", help="only reads; may be repeated")
    grants.set_defaults(run=_print_grants)
    return parser


def _add_path(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    parser.add_argument(name, required=True, type=_store, metavar="PATH", help=text)


def _store(text: str) -> Path:
    path = text.removeprefix(_SCHEME)
    if not path or (path == text and "://" in text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither the path of a file nor {_SCHEME}PATH")
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
    """Return a text as a terminal can show it: the number of a character where it has none for it."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
