"""``keys`` and ``sweep``: what sealed values need, and what the external storage holds."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import click

from orchestra.cli.checks import ExitCode
from orchestra.cli.output import Column, text
from orchestra.cli.parameters import DURATION
from orchestra.cli.work import Work, on_store
from orchestra.client import KeyInfo

__all__ = ["keys", "sweep"]


@click.command()
@click.option(
    "--limit", type=click.IntRange(1), default=1000, show_default=True, help="How far to count."
)
@on_store
def keys(work: Work, limit: int) -> None:
    """List the keys that stored values are sealed with, and how many instances need each.

    NEEDED counts instances and schedules whose code must read a value under the key. KEPT counts
    those with values that people alone read: former laps, outputs, custom status, streams.
    """
    work.output.records(
        work.run(lambda client: client.list_keys(limit=limit)), _COLUMNS, "no value is encrypted"
    )


def _count(number: int, info: KeyInfo) -> str:
    return f"{number:,}{'+' if info.more else ''}"


def _here(info: KeyInfo) -> str:
    return "writes" if info.current else "reads" if info.known else "-"


_COLUMNS: Final[list[Column[KeyInfo]]] = [
    Column("KEY", lambda one: one.key_id),
    Column("HERE", _here),
    Column("NEEDED", lambda one: _count(one.needed, one), right=True),
    Column("KEPT", lambda one: _count(one.kept, one), right=True),
    Column("FOR EXAMPLE", lambda one: ", ".join(one.examples)),
]


@click.command()
@click.option(
    "--older-than",
    type=DURATION,
    default="7d",
    show_default=True,
    help="Leave younger objects alone: their writes may be under way.",
)
@click.option("--yes", is_flag=True, help="Really do it.")
@on_store
def sweep(work: Work, older_than: timedelta, *, yes: bool) -> ExitCode:
    """Delete what the external storage has and no stored value refers to.

    It needs --payloads with the External part. It reads every sealed value of the store.
    """
    report = work.run(lambda client: client.sweep_payloads(older_than=older_than, dry_run=not yes))
    done = "deleted" if yes else "would be deleted; add --yes"
    told = (
        f"{report.objects:,} objects, {report.referred:,} in use, {report.young:,} too young to "
        f"judge, {report.deleted:,} {done}"
    )
    work.output.value(report, lambda: text(told))
    return ExitCode.FINE if yes or not report.deleted else ExitCode.WARNINGS
