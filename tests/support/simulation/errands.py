"""What the witness knows of activities that are handed out: who has which, and that each ends
once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orchestra.store.changes import Claim, Report, Write
from orchestra.store.kinds import ExecutionEnd, Status
from orchestra.store.outcomes import Claimed, Granted, Outcome, Refused, Reported
from orchestra.store.queries import InstanceRecord
from orchestra.store.routes import Route
from orchestra.store.tasks import LOST
from tests.support.simulation.lives import Life

__all__ = ["Errand", "Errands"]


@dataclass(slots=True)
class Errand:
    """One try that is handed out."""

    route: Route
    attempt: int
    owner: str | None = None
    revision: int = 0
    has_ended: bool = False
    stopping: bool = False
    """Whether it has the stop mark."""


class Errands:
    """Follows handing out, taking, reporting and losing, change by change."""

    def __init__(self, lives: Mapping[str, Life], counts: Counter[str]) -> None:
        self._lives = lives
        self._counts = counts
        self._of: dict[tuple[str, str], dict[int, Errand]] = {}
        self._fences: dict[tuple[str, str], dict[int, int]] = {}
        """The fences of all rows of activities, of those as well that are not handed out."""

    def written(self, write: Write, granted: Granted) -> None:
        """A write was granted: what it settles is over, what it closes is forgotten, and what it
        routes is handed out.
        """
        errands = self._of.setdefault((write.instance_id, write.incarnation), {})
        fences = self._fences.setdefault((write.instance_id, write.incarnation), {})
        ends = [delta.closed.end for delta in write.executions if delta.closed is not None]
        if write.state.status is not Status.OPEN or ends:
            waited_for = [
                errand for errand in errands.values() if errand.stopping and not errand.has_ended
            ]
            assert not waited_for or ExecutionEnd.TERMINATED in ends, (
                f"59: {write.instance_id} did not wait for {waited_for}"
            )
            errands.clear()
            fences.clear()
        for number in write.settled:
            errands.pop(number, None)
            fences.pop(number, None)
        for row in write.activities:
            standing = errands.pop(row.event_id, None)
            assert standing is None or standing.has_ended, (
                f"I5: {write.instance_id} takes {row} from who has it"
            )
            fences[row.event_id] = fences.get(row.event_id, -1) + 1
            if row.route is not None and write.state.status is Status.OPEN:
                assert row.owner in {None, write.owner}, (
                    f"I6: {write.instance_id} gives {row} to another node"
                )
                assert row.owner is not None or not row.stopping, (
                    f"59: {write.instance_id} hands out {row}, which is to end"
                )
                fence = fences[row.event_id]
                errands[row.event_id] = Errand(
                    row.route, row.attempt, row.owner, fence, stopping=row.stopping
                )
                self._counts["handed out" if row.owner is None else "handed over"] += 1
        withdrawn = [stop.event_id for stop in write.stops if self._stop(write, stop.event_id)]
        told = [
            (instance_id, end.activity.event_id, end.sequence)
            for instance_id, end in granted.arrivals
            if end.activity is not None
        ]
        life = self._lives[write.instance_id]
        expected = [
            (write.instance_id, number, life.inbox_seq + place)
            for place, number in enumerate(withdrawn, 1)
        ]
        assert told == expected, (
            f"59: {write.instance_id} hears of {told}, and has withdrawn {expected}"
        )
        life.inbox_seq += len(withdrawn)

    def _stop(self, write: Write, number: int) -> bool:
        """A try is to end. Return whether it ends at once, for nobody has it."""
        errand = self._of[write.instance_id, write.incarnation].get(number)
        if errand is None or errand.has_ended:
            return False
        errand.stopping = True
        if errand.owner is not None:
            self._counts["stop marks"] += 1
            return False
        errand.has_ended = True
        self._fences[write.instance_id, write.incarnation][number] += 1
        self._counts["withdrawn"] += 1
        return True

    def claimed(self, claim: Claim, outcome: Claimed) -> None:
        """A node has taken activities: such as it can run, that nobody had, and no more than it has
        places for.
        """
        assert len(outcome.tasks) <= claim.slots, (
            "a node was given more activities than it has places for"
        )
        for task in outcome.tasks:
            life = self._lives.get(task.instance_id)
            assert life is not None, "I6: an activity was taken of what is not there"
            assert (life.incarnation, life.number) == (task.incarnation, task.execution), (
                f"I5: {task} is of another execution"
            )
            errand = self._of[task.instance_id, task.incarnation].get(task.event_id)
            assert errand is not None, f"I5: {task} is not handed out"
            assert errand.owner is None, f"I6: {claim.node} has taken what {errand.owner} has"
            assert not errand.has_ended, f"I5: {task} was taken after its end"
            assert errand.route in claim.routes, (
                "a node was given an activity that it does not have"
            )
            assert errand.attempt == task.attempt, (
                f"rule 14: {task} is not attempt {errand.attempt}"
            )
            assert not task.stopping, f"59: {claim.node} has taken {task}, which was to end"
            errand.owner, errand.revision = claim.node, task.revision
            self._fences[task.instance_id, task.incarnation][task.event_id] = task.revision
            self._counts["taken"] += 1

    def reported(self, report: Report, outcome: Outcome) -> None:
        """A node has told how one goes, or how it has ended."""
        life = self._lives.get(report.instance_id)
        errand = self._of.get((report.instance_id, report.incarnation), {}).get(report.event_id)
        fits = (
            life is not None
            and errand is not None
            and (life.incarnation, life.number) == (report.incarnation, report.execution)
            and (errand.owner, errand.revision) == (report.node, report.revision)
        )
        assert isinstance(outcome, Reported) == fits, (
            f"I6: {report} of {errand} was answered {outcome}"
        )
        if isinstance(outcome, Refused):
            self._counts["reports refused"] += 1
        elif report.is_end and life is not None and errand is not None:
            self._counts["reported"] += 1
            errand.owner, errand.has_ended = None, True
            self._fences[report.instance_id, report.incarnation][report.event_id] += 1
            life.inbox_seq += 1

    def released(self, life: Life, record: InstanceRecord, living: Collection[str]) -> None:
        """Nodes were swept, or one has left: what the dead had is lost, and what who left had may
        be taken again.
        """
        rows = {row.event_id: row for row in record.activities}
        for number, errand in self._of.get((life.instance_id, life.incarnation), {}).items():
            row = rows[number]
            if errand.owner is None or row.owner == errand.owner:
                continue
            assert row.owner is None, f"I6: {errand.owner} had {row}, and did not take it"
            assert row.failure == LOST or not errand.stopping, (
                f"59: {row} was to end, and is there to be taken"
            )
            self._fences[life.instance_id, life.incarnation][number] = row.revision
            if row.failure == LOST:
                assert errand.owner not in living, (
                    f"rule 12: {row} was lost, and {errand.owner} lives"
                )
                errand.has_ended = True
                life.inbox_seq += 1
                self._counts["lost with their nodes"] += 1
            errand.owner = None

    def check(self, life: Life, record: InstanceRecord) -> None:
        """What is stored is what is known."""
        stored = {
            row.event_id: (row.route, row.attempt, row.owner, row.has_ended, row.stopping)
            for row in record.activities
            if row.route is not None
        }
        known = {
            number: (errand.route, errand.attempt, errand.owner, errand.has_ended, errand.stopping)
            for number, errand in self._of.get((life.instance_id, life.incarnation), {}).items()
        }
        assert stored == known, (
            f"I5: {life.instance_id} has handed out {stored}, and should have {known}"
        )
