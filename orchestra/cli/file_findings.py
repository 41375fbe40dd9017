"""Findings about a SQLite file and the SQLite library that reads it. Pure functions."""

from __future__ import annotations

from typing import Final

from orchestra.cli.checks import Check, Verdict
from orchestra.cli.wording import size_of
from orchestra.providers.sqlite.diagnosis import LOG_LIMIT, Pragmas, WriteLockState

__all__ = ["integrity_check", "lock_check", "pragmas_check", "sqlite_check"]

_OLDEST_LIBRARY: Final = (3, 37, 0)
"""The first release that knows STRICT tables."""

_RESET_BUG: Final = ((3, 7, 0), (3, 51, 2))
_RESET_BUG_FIXED_IN: Final = {(3, 44): 6, (3, 50): 7}
"""Older series that received the fix, and the first patch of each that has it."""

Version = tuple[int, int, int]


def sqlite_check(version: Version) -> Check:
    """Judge the SQLite library of this process. The services may use another one."""
    text = ".".join(map(str, version))
    if version < _OLDEST_LIBRARY:
        return Check(
            "sqlite",
            Verdict.FAILURE,
            f"{text} is too old: it cannot read STRICT tables",
            remedy="Use a Python with SQLite 3.37 or later, best 3.51.3 or later.",
        )
    if _has_reset_bug(version):
        return Check(
            "sqlite",
            Verdict.NOTICE,
            f"{text} has the WAL-reset bug (3.7.0 to 3.51.2, except patched older series). The bug "
            "can damage a file that two connections write at once. The file lock around each write "
            "transaction protects the store from it.",
            remedy="Let only orchestra write to the file. SQLite 3.51.3 fixes the bug.",
        )
    return Check("sqlite", Verdict.OK, f"{text}, free of the WAL-reset bug")


def _has_reset_bug(version: Version) -> bool:
    first, last = _RESET_BUG
    fixed_in = _RESET_BUG_FIXED_IN.get(version[:2])
    return first <= version <= last and (fixed_in is None or version[2] < fixed_in)


def pragmas_check(pragmas: Pragmas) -> Check:
    """Judge the journal mode and the size of the log."""
    free = f", {pragmas.free_pages:,} of {pragmas.pages:,} pages free" if pragmas.free_pages else ""
    file = f"file {size_of(pragmas.page_size * pragmas.pages)}{free}"
    if pragmas.journal_mode is None:
        return Check("pragmas", Verdict.OK, f"at rest, without a log; {file}")
    text = f"journal mode {pragmas.journal_mode}, {file}, log {size_of(pragmas.log_size)}"
    if pragmas.journal_mode != "wal":
        return Check(
            "pragmas",
            Verdict.NOTICE,
            text,
            remedy="The next runtime that opens the file turns the write-ahead log on.",
        )
    if pragmas.log_size > 2 * LOG_LIMIT:
        return Check(
            "pragmas",
            Verdict.WARNING,
            f"{text}: checkpoints do not keep up",
            remedy="Find the program that keeps a read transaction open on the file, and end it.",
        )
    return Check("pragmas", Verdict.OK, text)


def integrity_check(faults: tuple[str, ...], *, quick: bool) -> Check:
    """Judge the faults that SQLite found in the file."""
    name = "quick check" if quick else "full check"
    if faults:
        return Check(
            "integrity",
            Verdict.FAILURE,
            f"the {name} finds the file damaged",
            details=faults,
            remedy=(
                "Stop the services. Keep a copy of the file and of its -wal. Restore a backup, or "
                "recover with sqlite3's .recover."
            ),
        )
    return Check("integrity", Verdict.OK, f"the {name} finds no fault")


def lock_check(lock: WriteLockState) -> Check:
    """Judge the process that holds the writers' lock."""
    if lock.last is None:
        return Check("lock", Verdict.OK, "no process has written here yet")
    if lock.stuck:
        return Check(
            "lock",
            Verdict.WARNING,
            f"process {lock.last} holds the write lock and commits nothing; all other writers wait",
            remedy=(
                f"Look at process {lock.last}. If it is stopped, continue it or kill it; the "
                "kernel then frees the lock."
            ),
        )
    if lock.holder is not None:
        return Check("lock", Verdict.OK, f"process {lock.holder} is writing")
    state = "running" if lock.runs else "gone"
    return Check("lock", Verdict.OK, f"last taken by process {lock.last} ({state})")
