"""``schedules``: what starts by the clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, time
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast, get_args

import click
from rich.text import Text

from orchestra.cli.output import Column, instant, text
from orchestra.cli.parameters import DURATION, INSTANT, JSON, LABEL
from orchestra.cli.work import Work, on_store, operator
from orchestra.schedules import (
    CatchUp,
    Cron,
    Daily,
    Event,
    Every,
    Overlap,
    Schedule,
    ScheduleInfo,
    SlotOutcome,
    Spec,
    Start,
)

__all__ = ["schedules"]

P = ParamSpec("P")
T = TypeVar("T")

_STYLES: Final[dict[str, str]] = {
    "healthy": "green",
    "late": "bold yellow",
    "failing": "bold red",
    "skipping": "yellow",
    "paused": "cyan",
    "never_ran": "dim",
}

_reason = click.option("--reason", default="", help="Why, for the audit.")


@click.group()
def schedules() -> None:
    """Look at schedules, and pause, trigger or backfill them."""


def _next(info: ScheduleInfo) -> str:
    return instant(info.next_slots[0]) if info.next_slots else ""


def _last(info: ScheduleInfo) -> str:
    if not info.last_slots:
        return ""
    last = info.last_slots[0]
    return f"{instant(last.slot)} {last.outcome}"


def _does(info: ScheduleInfo) -> str:
    action = info.schedule.action
    if isinstance(action, Event):
        return f"event {action.name} for {action.instance_id}"
    return f"start {action.name}" + ("" if action.version is None else f" {action.version}")


def _verdict(info: ScheduleInfo) -> Text:
    return Text(info.verdict, style=_STYLES[info.verdict])


_COLUMNS: Final[list[Column[ScheduleInfo]]] = [
    Column("ID", lambda info: info.id),
    Column("VERDICT", _verdict),
    Column("NEXT SLOT", _next),
    Column("LAST SLOT", _last),
    Column("RUNS", lambda info: str(len(info.running)), right=True),
    Column("FIRED", lambda info: f"{info.counters.fired:,}", right=True),
    Column("DOES", _does),
]


@schedules.command("ls")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--page", help="Where the page before has ended: it says so on stderr.")
@on_store
def list_schedules(work: Work, limit: int, page: str | None) -> None:
    """List schedules, by their ids."""
    found = work.run(lambda client: client.schedules.list(limit=limit, page=page))
    work.output.records(found.items, _COLUMNS, "no schedule")
    if found.next_page is not None:
        work.output.say(f"more: --page {found.next_page}")


@schedules.command("show")
@click.argument("schedule")
@on_store
def show_schedule(work: Work, schedule: str) -> None:
    """Show a schedule: its next slots, its runs, and what became of its last slots."""
    info = work.run(lambda client: client.schedules.get(schedule))
    _draw(work, info)


def _draw(work: Work, info: ScheduleInfo) -> None:
    if not work.output.is_for_people:
        work.output.value(info, lambda: None)
        return
    facts = [
        f"{info.id}: {info.verdict}, {_does(info)}, {info.schedule.spec!r}",
        f"overlap {info.schedule.overlap}, catch-up {info.schedule.catch_up} within "
        f"{info.schedule.catch_up_window}, revision {info.revision}",
    ]
    if info.pause is not None:
        until = "" if info.pause.until is None else f" until {instant(info.pause.until)}"
        facts.append(f"paused{until} by {info.pause.by}: {info.pause.reason}")
    if info.next_slots:
        facts.append(f"next: {', '.join(map(instant, info.next_slots))}")
    facts += [f"run: {run}" for run in info.running]
    counts = ", ".join(
        f"{name} {getattr(info.counters, name):,}" for name in info.counters.__dataclass_fields__
    )
    work.output.draw(*map(text, facts), text(counts))
    columns: list[Column[SlotOutcome]] = [
        Column("SLOT", lambda one: instant(one.slot)),
        Column("OUTCOME", lambda one: one.outcome + (" (late)" if one.is_late else "")),
        Column("COUNT", lambda one: str(one.count), right=True),
        Column("RUN", lambda one: one.run or ""),
        Column("REASON", lambda one: one.reason),
    ]
    if info.last_slots:
        work.output.records(info.last_slots, columns, "")


_DEFINITION: Final = (
    click.argument("schedule"),
    click.option("--cron", help='An expression: "0 9 * * MON-FRI".'),
    click.option("--every", type=DURATION, help="Elapsed time: 15m."),
    click.option("--daily", metavar="HH:MM", help="A time of day."),
    click.option("--zone", default="UTC", show_default=True, help="Of --cron and --daily."),
    click.option("--start", "name", help="Start this orchestration at each slot."),
    click.option("--event", "event", nargs=2, metavar="INSTANCE NAME", help="Or send this event."),
    click.option("--value", type=JSON, help="The input, or the payload, as JSON."),
    click.option("--version", help="Start exactly this version."),
    click.option("--queue", help="The queue of each run."),
    click.option("--label", "labels", multiple=True, type=LABEL, metavar="KEY=VALUE"),
    click.option(
        "--overlap", type=click.Choice(get_args(Overlap)), default="skip", show_default=True
    ),
    click.option(
        "--catch-up", type=click.Choice(get_args(CatchUp)), default="latest", show_default=True
    ),
    click.option("--catch-up-window", type=DURATION, default="1d", show_default=True),
    click.option("--jitter", type=DURATION, default="0s", show_default=True),
    click.option("--start-at", type=INSTANT, help="No slot before it."),
    click.option("--end-at", type=INSTANT, help="No slot after it."),
    click.option("--pause-after-failures", type=click.IntRange(1), metavar="N"),
    _reason,
)


def _defines(function: Callable[Concatenate[Work, Schedule, P], T]) -> Callable[..., T]:
    """Give a command the schedule that its options define."""

    @wraps(function)
    def with_schedule(work: Work, *arguments: Any, **options: Any) -> T:
        return function(work, _defined(options), *arguments, **options)

    decorated: Callable[..., T] = on_store(with_schedule)
    for option in reversed(_DEFINITION):
        decorated = option(decorated)
    return decorated


def _defined(options: dict[str, Any]) -> Schedule:
    """Take the options of a definition, and return the schedule."""
    taken = {name: options.pop(name) for name in _DEFINING}
    cron, every, daily, zone = (taken[name] for name in ("cron", "every", "daily", "zone"))
    specs: list[Spec] = [
        *([] if cron is None else [Cron(cron, zone)]),
        *([] if every is None else [Every(every)]),
        *([] if daily is None else [Daily(_time(daily), zone)]),
    ]
    if len(specs) != 1:
        raise click.UsageError("say when: one of --cron, --every and --daily")
    name, event, value = taken["name"], taken["event"], taken["value"]
    if (name is None) == (event is None):
        raise click.UsageError("say what: --start NAME or --event INSTANCE NAME")
    return Schedule(
        taken["schedule"],
        specs[0],
        Event(event[0], event[1], value)
        if event is not None
        else Start(
            name,
            value,
            version=taken["version"],
            labels=dict(taken["labels"]) or None,
            queue=taken["queue"],
        ),
        **{name: taken[name] for name in _SAME},
    )


_SAME: Final = (
    "overlap",
    "catch_up",
    "catch_up_window",
    "jitter",
    "start_at",
    "end_at",
    "pause_after_failures",
)
"""Options with the name of a field of the schedule."""
_DEFINING: Final = (
    *("schedule", "cron", "every", "daily", "zone", "name", "event", "value", "version"),
    *("queue", "labels", *_SAME),
)


@schedules.command("create")
@_defines
def create_schedule(work: Work, made: Schedule, reason: str) -> None:
    """Create a schedule. What lives in code is better declared: Runtime(schedules=[...])."""
    _draw(
        work,
        work.run(lambda client: client.schedules.create(made, reason=reason, by=operator())),
    )


@schedules.command("update")
@click.option("--expected-revision", type=int, help="Only if it still has this revision.")
@_defines
def update_schedule(work: Work, made: Schedule, reason: str, expected_revision: int | None) -> None:
    """Replace a schedule. Its pause, its counters and its runs stay."""
    _draw(
        work,
        work.run(
            lambda client: client.schedules.update(
                made, expected_revision=expected_revision, reason=reason, by=operator()
            )
        ),
    )


def _time(words: str) -> time:
    try:
        return time.fromisoformat(words)
    except ValueError as error:
        raise click.UsageError(f"{words!r} is no time of day; write 09:00") from error


@schedules.command("pause")
@click.argument("schedule")
@click.option("--until", type=INSTANT, help="When it resumes by itself, in ISO 8601.")
@_reason
@on_store
def pause_schedule(work: Work, schedule: str, until: datetime | None, reason: str) -> None:
    """Pause a schedule: no slot runs. Its runs go on."""
    _draw(
        work,
        work.run(lambda client: client.schedules.pause(schedule, reason, until, by=operator())),
    )


@schedules.command("resume")
@click.argument("schedule")
@click.option("--catch-up", is_flag=True, help="Let the slots of the pause count as missed ones.")
@_reason
@on_store
def resume_schedule(work: Work, schedule: str, reason: str, *, catch_up: bool) -> None:
    """End the pause of a schedule."""
    _draw(
        work,
        work.run(
            lambda client: client.schedules.resume(
                schedule, catch_up=catch_up, reason=reason, by=operator()
            )
        ),
    )


@schedules.command("trigger")
@click.argument("schedule")
@click.option("--overlap", type=click.Choice(get_args(Overlap)), help="Instead of its own.")
@_reason
@on_store
def trigger_schedule(work: Work, schedule: str, overlap: str | None, reason: str) -> None:
    """Do now what the schedule does at a slot."""
    outcome = work.run(
        lambda client: client.schedules.trigger(
            schedule, overlap=cast("Overlap | None", overlap), reason=reason, by=operator()
        )
    )
    words = (
        "it waits for the end of another run"
        if outcome is None
        else f"{outcome.outcome} {outcome.run or ''} {outcome.reason}".strip()
    )
    work.output.value(outcome, lambda: text(words))


@schedules.command("backfill")
@click.argument("schedule")
@click.option("--from", "begin", type=INSTANT, required=True, help="The first slot, at the least.")
@click.option("--to", "end", type=INSTANT, required=True, help="The last slot, at the most.")
@click.option(
    "--overlap", type=click.Choice(get_args(Overlap)), default="buffer_all", show_default=True
)
@click.option("--yes", is_flag=True, help="Do it, and not only say what it would do.")
@_reason
@on_store
def backfill_schedule(
    work: Work,
    schedule: str,
    begin: datetime,
    end: datetime,
    overlap: str,
    reason: str,
    *,
    yes: bool,
) -> None:
    """Run the slots of a past interval."""
    report = work.run(
        lambda client: client.schedules.backfill(
            schedule,
            begin,
            end,
            dry_run=not yes,
            overlap=cast("Overlap", overlap),
            reason=reason,
            by=operator(),
        )
    )
    work.output.value(report, lambda: text(str(report)))
    if not yes and work.output.is_for_people:
        work.output.say("nothing was done; add --yes to do it")


@schedules.command("preview")
@click.argument("schedule")
@click.option("--count", type=click.IntRange(1, 1000), default=10, show_default=True)
@on_store
def preview_schedule(work: Work, schedule: str, count: int) -> None:
    """Say when the next slots of a schedule are."""
    slots = work.run(lambda client: client.schedules.preview(schedule, count))
    if work.output.is_for_people:
        work.output.draw(*(text(instant(slot)) for slot in slots))
    else:
        work.output.values(slots)


@schedules.command("delete")
@click.argument("schedule")
@_reason
@on_store
def delete_schedule(work: Work, schedule: str, reason: str) -> None:
    """Delete a schedule. Its runs go on."""
    work.run(lambda client: client.schedules.delete(schedule, reason=reason, by=operator()))
