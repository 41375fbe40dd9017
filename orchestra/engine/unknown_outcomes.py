"""Instances of which this node does not know whether they are its own, and how it finds out (rules
9 and 13).

A reply was lost, a write was refused, or the store says that this node owns what it does not hold.
The answer is never read: a write is made in the node's name, which waits for what is still under
way, fences it off, and brings the row back.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.engine.activities import Activities
from orchestra.engine.messages import ActivityEnded
from orchestra.engine.owned import OwnedInstance
from orchestra.store.changes import Recover
from orchestra.store.kinds import HoldKind

__all__ = ["UnknownOutcomes"]


class UnknownOutcomes:
    """What is to be asked for, and what is known of it meanwhile: what its activities report, and
    why it is to be held.

    None of these instances is on the desk. What activities report of them is kept: if no write has
    recorded it, it is taken in once the instance is back.
    """

    def __init__(self, activities: Activities) -> None:
        self._activities = activities
        self._asked: dict[str, None] = {}
        self._faults: dict[str, tuple[HoldKind, str]] = {}
        """What those are to be held for that are asked for because of a fault."""
        self._suspects: dict[str, list[ActivityEnded]] = {}
        """Instances whose write was refused, and what their activities have reported."""

    def __len__(self) -> int:
        """How many instances are asked for."""
        return len(self._asked)

    def clear(self) -> None:
        """Forget all of them."""
        self._asked.clear()
        self._faults.clear()
        self._suspects.clear()

    # --- what comes into doubt ---

    def ask(self, instance_id: str, reports: Sequence[ActivityEnded] = ()) -> None:
        """Ask at the next step what has become of an instance, and whose it is."""
        self._asked[instance_id] = None
        self._activities.keep_unrecorded(reports)

    def ask_to_hold(
        self, instance_id: str, kind: HoldKind, detail: str, reports: Sequence[ActivityEnded] = ()
    ) -> None:
        """Ask at the next step for an instance that is to be held as the store has it."""
        self.ask(instance_id, reports)
        self._faults[instance_id] = kind, detail

    def suspect(self, instance: OwnedInstance) -> None:
        """Find out at the next look whose an instance is whose write was refused.

        Most often it is somebody else's by now, so what runs for it is aborted. But an operator may
        have raised the revision in this node's name, to come in between the writes of a busy
        instance: so it is not asked for at once, and what activities have reported is kept.
        """
        self._suspects[instance.instance_id] = list(instance.unacknowledged)
        self._activities.abort_all(
            instance.instance_id, but={message.key for message in instance.unacknowledged}
        )

    def ask_for_suspects(self) -> None:
        """Ask at the next step for those whose write was refused."""
        suspects, self._suspects = self._suspects, {}
        for instance_id, reports in suspects.items():
            self.ask(instance_id, reports)

    # --- meanwhile ---

    def questions(self, node: str) -> list[Recover]:
        """Return the writes that are to be made now. They are made again until they are
        answered.
        """
        return [Recover(instance_id, node) for instance_id in self._asked]

    def keep(self, message: ActivityEnded) -> bool:
        """Keep the end of a try of an instance in doubt. Return whether it is."""
        reports = self._suspects.get(message.key.instance_id)
        if reports is not None:
            reports.append(message)
            return True
        if message.key.instance_id in self._asked:
            self._activities.keep((message,))
            return True
        return False

    # --- what goes out of doubt ---

    def answered(self, instance_id: str) -> None:
        """Ask for an instance no more."""
        self._asked.pop(instance_id, None)

    def is_lost(self, instance_id: str) -> None:
        """Take note that an instance is not this node's: nothing of it is wanted any more."""
        self._faults.pop(instance_id, None)
        self._activities.drop_reports(instance_id)
        self._activities.abort_all(instance_id)

    def is_back(self, instance_id: str) -> tuple[HoldKind, str] | None:
        """Take note that an instance has come back to the desk. Return what it is to be held
        for.
        """
        self._activities.keep_unrecorded(self._suspects.pop(instance_id, ()))
        return self._faults.pop(instance_id, None)
