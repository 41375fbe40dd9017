"""The command and its subcommands."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from orchestra.cli.checks import ExitCode, Report
from orchestra.cli.doctor import examine
from orchestra.cli.rendering import as_json, as_text
from orchestra.clock import SystemClock

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
    report = examine(options.store, SystemClock(), quick=options.quick)
    try:
        _write(report, json=options.json)
    except BrokenPipeError:
        # Whoever read has seen enough. Nothing may be flushed into the broken pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return report.exit_code


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
    doctor.add_argument(
        "--store",
        required=True,
        type=_store,
        metavar="PATH",
        help="the file; or sqlite:///relative.db, sqlite:////absolute.db",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.add_argument("--quick", action="store_true", help="check the file less thoroughly")
    return parser


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
        # A terminal that cannot show a character of a name shows its number.
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(as_text(report).encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
