"""``cancel``, ``terminate``, ``hold``, ``release``, ``pin``, ``unpin``, ``nudge``, ``rewind``,
``rerun``, ``delete``, ``purge``: what operators do to instances.

Each takes ids, or the conditions of a selection. With conditions it first says how many instances
that are, and does nothing without ``--yes``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any, Final, TypeVar

import click

from orchestra.cli.checks import ExitCode
from orchestra.cli.completion import INSTANCES
from orchestra.cli.output import Column, Output, text
from orchestra.cli.parameters import INSTANT, LABEL, selection_options
from orchestra.cli.progress import progress_of
from orchestra.cli.work import Work, on_store, operator, resolve
from orchestra.client import Client
from orchestra.client.bulk import BulkReport
from orchestra.client.info import InstanceStatus
from orchestra.client.selections import Selection
from orchestra.errors import OrchestraError
from orchestra.operations.bulk import Bulk

__all__ = [
    "cancel",
    "delete",
    "hold",
    "nudge",
    "pin",
    "purge",
    "release",
    "rerun",
    "rewind",
    "terminate",
    "unpin",
]

T = TypeVar("T")

_SHOWN: Final = 10
"""How many ids are named."""

_CODES: Final = """\
\b
exit code:
  0  done, or nothing was left to do
  1  without --yes: this is what it would do
  2  it failed on an instance
  3  the store cannot be read, or the command was misused"""

Act = Callable[[Client, str], Awaitable[object]]
"""What a command does to one instance."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one instance. ``detail`` is the error, or what the act says of itself."""

    instance_id: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """The instances of a command: ids or beginnings of ids, or the conditions of a selection."""

    ids: tuple[str, ...]
    selection: Selection
    everything: bool
    yes: bool
    reason: str


def _on_instances(function: Callable[..., T]) -> Callable[..., T]:
    """Give a command its store and its target."""

    @wraps(function)
    def with_target(
        work: Work,
        selection: Selection,
        instances: tuple[str, ...],
        *,
        everything: bool,
        yes: bool,
        reason: str,
        **options: Any,
    ) -> T:
        return function(work, Target(instances, selection, everything, yes, reason), **options)

    decorated = on_store(with_target)
    for option in (
        click.option("--yes", is_flag=True, help="Do it, and not only say what it would do."),
        click.option("--all", "everything", is_flag=True, help="All instances of the store."),
        click.option("--reason", default="", help="Why, for the audit."),
        INSTANCES,
    ):
        decorated = option(decorated)
    return selection_options(decorated)


def _command(
    name: str, bulk: Bulk, one: Callable[[Client, str, str], Awaitable[object]], words: str
) -> click.Command:
    """Make a command that needs no more than its instances and a reason."""

    @click.command(name, help=words, epilog=_CODES)
    @_on_instances
    def command(work: Work, target: Target) -> ExitCode:
        return _act(work, target, bulk, lambda client, one_id: one(client, one_id, target.reason))

    return command


def _act(work: Work, target: Target, bulk: Bulk, act: Act, **options: Any) -> ExitCode:
    """Do something to the ids of a target, or to its selection."""
    selects = target.everything or target.selection != Selection()
    if bool(target.ids) == selects:
        raise click.UsageError(
            "name instances, or give conditions such as --name and --status (--all for all of them)"
        )
    if target.ids:
        return _act_on_ids(work, target.ids, act)
    return _act_on_selection(work, target, bulk, options)


def _act_on_ids(work: Work, ids: tuple[str, ...], act: Act) -> ExitCode:
    async def run(client: Client) -> list[Done]:
        found = [await resolve(client, one) for one in ids]  # first: a misspelt one does nothing
        return [await _tried(client, one, act) for one in found]

    done = work.run(run)
    columns: list[Column[Done]] = [
        Column("ID", lambda one: one.instance_id),
        Column("OUTCOME", lambda one: one.outcome),
        Column("", lambda one: one.detail),
    ]
    work.output.records(done, columns, "")
    return ExitCode.FAILURES if any(one.outcome == "failed" for one in done) else ExitCode.FINE


async def _tried(client: Client, instance_id: str, act: Act) -> Done:
    try:
        result = await act(client, instance_id)
    except OrchestraError as error:
        return Done(instance_id, "failed", f"{type(error).__name__}: {error}")
    return Done(instance_id, "done", "" if result is None else str(result))


def _act_on_selection(work: Work, target: Target, bulk: Bulk, options: dict[str, Any]) -> ExitCode:
    planned = work.run(
        lambda client: client.bulk(
            bulk, target.selection, reason=target.reason, by=operator(), **options
        )
    )
    if not target.yes:
        _report(work.output, planned)
        if work.output.is_for_people:
            work.output.say("nothing was done; add --yes to do it")
        return ExitCode.WARNINGS
    with progress_of(work.output, planned.matched) as show:
        report = work.run(
            lambda client: client.bulk(
                bulk,
                target.selection,
                dry_run=False,
                reason=target.reason,
                by=operator(),
                progress=lambda so_far: show(so_far.matched),
                **options,
            )
        )
    _report(work.output, report)
    return ExitCode.FAILURES if report.failed else ExitCode.FINE


def _report(output: Output, report: BulkReport) -> None:
    if not output.is_for_people:
        output.value(report, lambda: None)
        return
    act = report.act.value
    if report.dry_run:
        lines = [f"{act} would act on {report.matched:,} instances"]
    else:
        lines = [
            f"{act}: {report.changed:,} changed, {report.skipped:,} skipped, "
            f"{report.failed:,} failed, of {report.matched:,}"
        ]
    lines += [f"  {one}" for one in report.sample[:_SHOWN]]
    if report.matched > _SHOWN:
        lines.append(f"  and {report.matched - _SHOWN:,} more")
    lines += [f"failed: {one.instance_id}: {one.error}" for one in report.failures]
    output.draw(*map(text, lines))


cancel: click.Command = _command(
    "cancel",
    Bulk.CANCEL,
    lambda client, one, reason: client.cancel(one, reason, by=operator()),
    "Ask instances to stop: their code gets a cancellation at its await.",
)
terminate: click.Command = _command(
    "terminate",
    Bulk.TERMINATE,
    lambda client, one, reason: client.terminate(one, reason, by=operator()),
    "End instances at once. Their code does not run again.",
)
hold: click.Command = _command(
    "hold",
    Bulk.HOLD,
    lambda client, one, reason: client.hold(one, reason=reason, by=operator()),
    "Pause instances until they are released: no turn, no timer, no activity.",
)
release: click.Command = _command(
    "release",
    Bulk.RELEASE,
    lambda client, one, reason: client.release(one, reason=reason, by=operator()),
    "End what holds instances: an operator's hold, or a fault.",
)
unpin: click.Command = _command(
    "unpin",
    Bulk.UNPIN,
    lambda client, one, reason: client.unpin(one, reason=reason, by=operator()),
    "Let the policy choose the version of instances again.",
)
delete: click.Command = _command(
    "delete",
    Bulk.DELETE,
    lambda client, one, reason: client.delete(one, reason=reason, by=operator()),
    "Delete ended instances, with all that belongs to them.",
)


async def _nudged(client: Client, one: str, reason: str) -> str | None:
    asked = await client.nudge(one, reason=reason, by=operator())
    return None if asked else "it was asked before"


nudge: click.Command = _command(
    "nudge",
    Bulk.NUDGE,
    _nudged,
    "Ask instances to reach their boundary soon. Only code that hears it does.",
)


@click.command(epilog=_CODES)
@click.option("--to", required=True, metavar="VERSION", help="The version to pin them to.")
@click.option("--until", type=INSTANT, help="When the pin expires; not with conditions.")
@_on_instances
def pin(work: Work, target: Target, to: str, until: datetime | None) -> ExitCode:
    """Pin instances to a version from their next boundary on, against the policy."""
    if until is not None and not target.ids:
        raise click.UsageError("--until is for single instances")
    return _act(
        work,
        target,
        Bulk.PIN,
        lambda client, one: client.pin(one, to, until, reason=target.reason, by=operator()),
        version=to,
    )


@click.command(epilog=_CODES)
@click.option("--execution", type=int, metavar="N", help="The lap that begins again.")
@click.option(
    "--to-version",
    help="The version to run; with conditions, also where it goes back to: out of this version.",
)
@click.option("--pin/--no-pin", "stays", default=True, help="Whether it stays on that version.")
@click.option("--cancel-children", is_flag=True, help="Cancel children started since.")
@click.option("--request-id", help="Your own id of this request: the same one acts once.")
@_on_instances
def rewind(
    work: Work,
    target: Target,
    execution: int | None,
    to_version: str | None,
    request_id: str | None,
    *,
    stays: bool,
    cancel_children: bool,
) -> ExitCode:
    """Go back: begin a former lap again from its state, with the events that were read since."""
    if target.ids and execution is None:
        raise click.UsageError("say which lap begins again: --execution N")
    if not target.ids and (execution is not None or not stays or cancel_children):
        raise click.UsageError("--execution, --no-pin and --cancel-children are for instances")

    async def back(client: Client, one: str) -> str:
        assert execution is not None
        info = await client.rewind(
            one,
            execution,
            to_version,
            pin=stays,
            children="cancel" if cancel_children else "abandon",
            reason=target.reason,
            by=operator(),
            request_id=request_id,
        )
        return (
            f"lap {info.execution_id} on {info.version}, {info.events_restored} events unread again"
        )

    return _act(work, target, Bulk.REWIND, back, version=to_version, request_id=request_id)


@click.command(epilog=_CODES)
@click.option("--on-version", help="The version to run; by default that of the policy.")
@click.option("--new-id", help="The id of the new instance; for one instance.")
@click.option("--request-id", help="With conditions: your own id of this job.")
@_on_instances
def rerun(
    work: Work,
    target: Target,
    on_version: str | None,
    new_id: str | None,
    request_id: str | None,
) -> ExitCode:
    """Start new instances from the first input of others."""
    if new_id is not None and len(target.ids) != 1:
        raise click.UsageError("--new-id is for one instance")

    async def again(client: Client, one: str) -> str:
        handle = await client.rerun(
            one, version=on_version, instance_id=new_id, reason=target.reason, by=operator()
        )
        return f"as {handle.instance_id}"

    return _act(work, target, Bulk.RERUN, again, version=on_version, request_id=request_id)


@click.command(epilog=_CODES)
@click.option(
    "--ended-before",
    required=True,
    type=INSTANT,
    help="Only what ended before this instant, or longer ago than this: 90d.",
)
@click.option("--name", help="The name of the orchestration.")
@click.option(
    "--status",
    multiple=True,
    type=click.Choice([status.value for status in InstanceStatus if status.is_final]),
    help="How they ended; may be repeated.",
)
@click.option("--id-prefix", help="The beginning of the id.")
@click.option("--label", "labels", multiple=True, type=LABEL, metavar="KEY=VALUE")
@click.option("--limit", type=click.IntRange(1), help="How many at most, the newest first.")
@click.option("--reason", default="", help="Why, for the audit.")
@click.option("--yes", is_flag=True, help="Do it, and not only say what it would do.")
@on_store
def purge(
    work: Work,
    ended_before: datetime,
    name: str | None,
    status: tuple[str, ...],
    id_prefix: str | None,
    labels: tuple[tuple[str, str], ...],
    limit: int | None,
    reason: str,
    *,
    yes: bool,
) -> ExitCode:
    """Delete instances that ended before a moment."""
    report = work.run(
        lambda client: client.purge(
            completed_before=ended_before,
            name=name,
            status=[InstanceStatus(one) for one in status] or None,
            id_prefix=id_prefix,
            labels=dict(labels) or None,
            limit=limit,
            dry_run=not yes,
            reason=reason,
            by=operator(),
        )
    )
    if not work.output.is_for_people:
        work.output.value(report, lambda: None)
        return ExitCode.FINE if yes else ExitCode.WARNINGS
    verb = "deleted" if yes else "would delete"
    lines = [f"{verb} {report.count:,} instances"]
    lines += [f"  {one}" for one in report.instance_ids[:_SHOWN]]
    work.output.draw(*map(text, lines))
    if not yes:
        work.output.say("nothing was done; add --yes to do it")
    return ExitCode.FINE if yes else ExitCode.WARNINGS
