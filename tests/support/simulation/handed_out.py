"""What the witness knows of handed-out activities: which node has which, and that each ends
once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orchestra.store.changes import Claim, Publish, Report, Write
from orchestra.store.kinds import ExecutionEnd, Status
from orchestra.store.outcomes import Claimed, Granted, Outcome, Refused, Reported
from orchestra.store.queries import InstanceRecord
from orchestra.store.routes import Route
from orchestra.store.tasks import LOST
from tests.support.simulation.instances import WatchedInstance

__all__ = ["HandedOutActivities", "HandedOutActivity"]


@dataclass(slots=True)
class HandedOutActivity:
    """An attempt that is handed out."""

    route: Route
    attempt: int
    owner: str | None = None
    revision: int = 0
    has_ended: bool = False
    stopping: bool = False
    """Whether it has the stop mark."""
    paused: bool = False
    """Whether an operator holds its instance."""


class HandedOutActivities:
    """Follows handing out, taking, reporting and losing, change by change."""

    def __init__(self, instances: Mapping[str, WatchedInstance], counts: Counter[str]) -> None:
        self._instances = instances
        self._counts = counts
        self._of: dict[tuple[str, str], dict[int, HandedOutActivity]] = {}
        self._fences: dict[tuple[str, str], dict[int, int]] = {}
        """The fences of all rows of activities, of those as well that are not handed out."""

    def published(self, publish: Publish, outcome: Outcome) -> None:
        """Items were published: the first step of an activity makes its row."""
        instance = self._instances.get(publish.instance_id)
        life = publish.incarnation, publish.execution
        stands = instance is not None and (instance.incarnation, instance.number) == life
        if stands and publish.steps is not None and isinstance(outcome, Granted):
            fences = self._fences.setdefault((publish.instance_id, publish.incarnation), {})
            self._counts["rows made by steps"] += publish.event_id not in fences
            fences.setdefault(publish.event_id, 0)

    def written(self, write: Write, granted: Granted) -> None:
        """A write was granted: what it completes is over, what it closes is forgotten, and what it
        routes is handed out.
        """
        activities = self._of.setdefault((write.instance_id, write.incarnation), {})
        fences = self._fences.setdefault((write.instance_id, write.incarnation), {})
        ends = [delta.closed.end for delta in write.executions if delta.closed is not None]
        if write.state.status is not Status.OPEN or ends:
            waited_for = [
                activity
                for activity in activities.values()
                if activity.stopping and not activity.has_ended
            ]
            by_operator = {ExecutionEnd.TERMINATED, ExecutionEnd.REWOUND}.intersection(ends)
            assert not waited_for or by_operator, (
                f"59: {write.instance_id} did not wait for {waited_for}"
            )
            activities.clear()
            fences.clear()
        for number in write.completed:
            activities.pop(number, None)
            fences.pop(number, None)
        for row in write.activities:
            standing = activities.pop(row.event_id, None)
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
                activities[row.event_id] = HandedOutActivity(
                    row.route, row.attempt, row.owner, fence, stopping=row.stopping
                )
                self._counts["handed out" if row.owner is None else "handed over"] += 1
        withdrawn = [
            stop.event_id for stop in write.extras.stops if self._stop(write, stop.event_id)
        ]
        told = [
            (instance_id, end.activity.event_id, end.sequence)
            for instance_id, end in granted.arrivals
            if end.activity is not None
        ]
        instance = self._instances[write.instance_id]
        expected = [
            (write.instance_id, number, instance.inbox_seq + place)
            for place, number in enumerate(withdrawn, 1)
        ]
        assert told == expected, (
            f"59: {write.instance_id} hears of {told}, and has withdrawn {expected}"
        )
        instance.inbox_seq += len(withdrawn)

    def _stop(self, write: Write, number: int) -> bool:
        """A try is to end. Return whether it ends at once, for nobody has it."""
        activity = self._of[write.instance_id, write.incarnation].get(number)
        if activity is None or activity.has_ended:
            return False
        activity.stopping = True
        if activity.owner is not None:
            self._counts["stop marks"] += 1
            return False
        activity.has_ended = True
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
            instance = self._instances.get(task.instance_id)
            assert instance is not None, "I6: an activity was taken of what is not there"
            assert (instance.incarnation, instance.number) == (task.incarnation, task.execution), (
                f"I5: {task} is of another execution"
            )
            activity = self._of[task.instance_id, task.incarnation].get(task.event_id)
            assert activity is not None, f"I5: {task} is not handed out"
            assert activity.owner is None, f"I6: {claim.node} has taken what {activity.owner} has"
            assert not activity.has_ended, f"I5: {task} was taken after its end"
            assert not activity.paused, f"rule 32: {claim.node} has taken {task}, which is held"
            assert activity.route in claim.routes, (
                "a node was given an activity that it does not have"
            )
            assert activity.route.node in {None, claim.node}, (
                f"{claim.node} has taken {task}, which belongs to a session on another node"
            )
            assert activity.attempt == task.attempt, (
                f"rule 14: {task} is not attempt {activity.attempt}"
            )
            assert not task.stopping, f"59: {claim.node} has taken {task}, which was to end"
            activity.owner, activity.revision = claim.node, task.revision
            self._fences[task.instance_id, task.incarnation][task.event_id] = task.revision
            self._counts["taken"] += 1

    def reported(self, report: Report, outcome: Outcome) -> None:
        """A node has told how one goes, or how it has ended."""
        instance = self._instances.get(report.instance_id)
        activity = self._of.get((report.instance_id, report.incarnation), {}).get(report.event_id)
        fits = (
            instance is not None
            and activity is not None
            and (instance.incarnation, instance.number) == (report.incarnation, report.execution)
            and (activity.owner, activity.revision) == (report.node, report.revision)
        )
        assert isinstance(outcome, Reported) == fits, (
            f"I6: {report} of {activity} was answered {outcome}"
        )
        if isinstance(outcome, Refused):
            self._counts["reports refused"] += 1
        elif report.is_end and instance is not None and activity is not None:
            self._counts["reported"] += 1
            activity.owner, activity.has_ended = None, True
            self._fences[report.instance_id, report.incarnation][report.event_id] += 1
            instance.inbox_seq += 1

    def released(
        self, instance: WatchedInstance, record: InstanceRecord, living: Collection[str]
    ) -> None:
        """Nodes were swept, or one has left: what the dead had is lost, and what who left had may
        be taken again.
        """
        rows = {row.event_id: row for row in record.activities}
        for number, activity in self._of.get(
            (instance.instance_id, instance.incarnation), {}
        ).items():
            row = rows[number]
            if activity.owner is None and not activity.has_ended and row.failure == LOST:
                only = activity.route.node
                assert only is not None, f"I5: {row} was lost, and nobody had it"
                assert only not in living, f"{row} was lost with its session, and {only} lives"
                self._fences[instance.instance_id, instance.incarnation][number] = row.revision
                activity.has_ended = True
                instance.inbox_seq += 1
                self._counts["lost before they were taken"] += 1
                continue
            if activity.owner is None or row.owner == activity.owner:
                continue
            assert row.owner is None, f"I6: {activity.owner} had {row}, and did not take it"
            assert row.failure == LOST or not activity.stopping, (
                f"59: {row} was to end, and is there to be taken"
            )
            self._fences[instance.instance_id, instance.incarnation][number] = row.revision
            if row.failure == LOST:
                assert activity.owner not in living, (
                    f"rule 12: {row} was lost, and {activity.owner} lives"
                )
                activity.has_ended = True
                instance.inbox_seq += 1
                self._counts["lost with their nodes"] += 1
            activity.owner = None

    def suspended(self, instance: WatchedInstance) -> bool:
        """An operator's hold takes what is handed out from who has it; what is to end goes on.
        Return whether anybody had any.
        """
        taken = 0
        key = instance.instance_id, instance.incarnation
        for number, activity in self._of.get(key, {}).items():
            if not activity.has_ended and not activity.stopping:
                taken += activity.owner is not None
                activity.owner, activity.paused = None, True
                self._fences[key][number] += 1
        self._counts["taken by a hold"] += taken
        return taken > 0

    def resumed(self, instance: WatchedInstance) -> None:
        """The hold has ended, and what was handed out may be taken again."""
        for activity in self._of.get((instance.instance_id, instance.incarnation), {}).values():
            activity.paused = False

    def check(self, instance: WatchedInstance, record: InstanceRecord) -> None:
        """What is stored is what is known."""
        stored = {
            row.event_id: (
                row.route,
                row.attempt,
                row.owner,
                row.has_ended,
                row.stopping,
                row.paused,
            )
            for row in record.activities
            if row.route is not None
        }
        known = {
            number: (
                activity.route,
                activity.attempt,
                activity.owner,
                activity.has_ended,
                activity.stopping,
                activity.paused,
            )
            for number, activity in self._of.get(
                (instance.instance_id, instance.incarnation), {}
            ).items()
        }
        assert stored == known, (
            f"I5: {instance.instance_id} has handed out {stored}, and should have {known}"
        )
