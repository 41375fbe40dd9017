"""The report at the end: print each instance's executions, and check the demo's claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from story import SLOW, Outage
from watches import NEW, OLD

from orchestra import Client, ExecutionInfo, HistoryEvent, InstanceInfo, InstanceStatus


@dataclass(frozen=True)
class Record:
    """All stored facts about one instance."""

    info: InstanceInfo
    executions: Sequence[ExecutionInfo]
    histories: Mapping[int, Sequence[HistoryEvent]]

    def tries(self, execution: int) -> int:
        """Return how many attempts the probe of a lap took."""
        return max((event.details["attempt"] for event in self.results(execution)), default=0)

    def results(self, execution: int) -> Sequence[HistoryEvent]:
        """Return the events that hold a result of the probe of a lap."""
        return [event for event in self.histories[execution] if event.kind == "activity_completed"]


async def read_records(client: Client, instance_ids: Sequence[str]) -> list[Record]:
    """Read instances with their executions and histories."""
    records: list[Record] = []
    for instance_id in instance_ids:
        info = await client.get_instance_info(instance_id)
        executions = await client.list_executions(instance_id)
        numbers = [execution.execution_id for execution in executions]
        histories = {number: await client.get_history(instance_id, number) for number in numbers}
        records.append(Record(info, executions, histories))
    return records


# --- printing ---


def print_records(records: Sequence[Record], cut: Mapping[str, int]) -> None:
    """Print the executions of each instance. ``cut``: the laps that were under way when the worker
    was killed.
    """
    for record in records:
        print(f"\n{record.info.instance_id}: {record.info.status}, {record.info.output!r}")
        print("lap  version  by      status            events  began     took   tries")
        for execution in record.executions:
            print(
                _execution_line(
                    record,
                    execution,
                    was_cut=cut.get(record.info.instance_id) == execution.execution_id,
                )
            )


def _execution_line(record: Record, execution: ExecutionInfo, *, was_cut: bool) -> str:
    cells = (
        f"{execution.execution_id:3}",
        f"{execution.version:<7}",
        f"{execution.resolved_by:<6}",
        f"{execution.status:<16}",
        f"{execution.history_events:6}",
        f"{execution.started_at.astimezone():%H:%M:%S}" if execution.started_at else "-       ",
        f"{_took(execution):<5}",
        f"{record.tries(execution.execution_id):5}",
        "← kill" if was_cut else "",
    )
    return "  ".join(cells).rstrip()


def _took(execution: ExecutionInfo) -> str:
    if execution.started_at is None or execution.ended_at is None:
        return "-"
    return f"{(execution.ended_at - execution.started_at).total_seconds():.1f} s"


def version_path(executions: Sequence[ExecutionInfo]) -> str:
    """Return the versions in the order in which they ran, with the number of laps on each."""
    runs = groupby(execution.version for execution in executions)
    return " → ".join(f"{version} ×{len(list(run))}" for version, run in runs)  # noqa: RUF001 - times, not x


def first_commit_after(records: Sequence[Record], moment: datetime) -> datetime | None:
    """Return when, after a moment, the next event of any instance was written."""
    times = (
        event.at for record in records for history in record.histories.values() for event in history
    )
    return min((at for at in times if at > moment), default=None)


# --- checking ---


def complaints(records: Sequence[Record], cut: Mapping[str, int], outage: Outage) -> list[str]:
    """Return what is not as the demo claims; nothing, if all is well."""
    found = [
        f"{record.info.instance_id}: {complaint}"
        for record in records
        for complaint in _complaints(record, cut[record.info.instance_id])
    ]
    tried = {record.info.instance_id: record for record in records}
    if tried[SLOW].tries(cut[SLOW]) < 2:
        found.append(f"{SLOW}: the probe of lap {cut[SLOW]}, lost in the kill, was not tried again")
    if tried[outage.instance_id].tries(outage.lap) < outage.tries:
        found.append(
            f"{outage.instance_id}: lap {outage.lap} took fewer than {outage.tries} tries in "
            "spite of the outage"
        )
    return found


def _complaints(record: Record, cut: int) -> Iterator[str]:
    executions = record.executions
    count = len(executions)
    if [execution.execution_id for execution in executions] != list(range(1, count + 1)):
        yield f"the laps are not numbered 1 to {count} without a gap"
    for execution in executions:
        lap, expected = execution.execution_id, OLD if execution.execution_id <= cut else NEW
        if execution.version != expected:
            yield (
                f"lap {lap} ran on {execution.version} instead of {expected}; lap {cut} was under "
                "way at the kill"
            )
        ending = "completed" if lap == count else "continued_as_new"
        if execution.status != ending:
            yield f"lap {lap} is {execution.status} instead of {ending}"
        if execution.input["checks"] != lap - 1:
            yield (
                f"lap {lap} began with {execution.input['checks']} checks in its state instead of "
                f"{lap - 1}"
            )
        results = len(record.results(lap))
        if results != 1:
            yield f"lap {lap} has {results} results of its probe instead of 1"
    if count <= cut:
        yield f"no lap on {NEW}"
    if record.info.status is not InstanceStatus.COMPLETED:
        yield f"ended as {record.info.status} instead of completed"
    elif record.info.output != f"stopped after {count} checks":
        yield f"returned {record.info.output!r} after {count} laps"
