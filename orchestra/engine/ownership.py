"""Which instances this node owns: how one comes into its run queue, and how it leaves.

Sometimes a node does not know whether it owns an instance: a reply was lost, a write was refused,
or the store says that it owns what it does not have. It never finds out by reading. It makes a
write in its own name. That waits for writes under way, fences them off, and brings the row back
(rules 9 and 13).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from orchestra.engine.activities import Activities
from orchestra.engine.blocked_turns import BlockedTurns, ClosingExecution, Result, RunningTurn
from orchestra.engine.log_notices import LogNotices
from orchestra.engine.owned import ExecutionCache, OwnedInstance
from orchestra.engine.run_queue import RunQueue
from orchestra.engine.steps.holding import describe_error
from orchestra.engine.steps.opening import restore_activities
from orchestra.store.changes import Recover
from orchestra.store.kinds import HoldKind
from orchestra.store.messages import InboxPage
from orchestra.store.snapshots import Snapshot
from orchestra.telemetry import Recorder, escaped, log_instance

__all__ = ["Ownership", "UnknownOutcomes"]


class UnknownOutcomes:
    """The instances whose last write has an unknown outcome, or was refused.

    None of them is in the run queue. Meanwhile the reports of their activities are kept.
    """

    def __init__(self) -> None:
        self._asked: dict[str, None] = {}
        """Instances to recover."""
        self._faults: dict[str, tuple[HoldKind, str]] = {}
        """Why some of them must be held once they are recovered."""
        self._refused: dict[str, None] = {}
        """Instances whose write was refused."""

    def __len__(self) -> int:
        """How many instances the next group recovers."""
        return len(self._asked)

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self._asked or instance_id in self._refused

    def clear(self) -> None:
        """Forget all of them."""
        self._asked.clear()
        self._faults.clear()
        self._refused.clear()

    def recover(self, instance_id: str) -> None:
        """Recover an instance with the next group."""
        self._asked[instance_id] = None

    def recover_to_hold(self, instance_id: str, kind: HoldKind, detail: str) -> None:
        """Recover an instance with the next group, and hold it as the store has it."""
        self._asked[instance_id] = None
        self._faults[instance_id] = kind, detail

    def refused(self, instance_id: str) -> None:
        """Take in that an instance's write was refused: it is recovered after the next poll."""
        self._refused[instance_id] = None

    def recover_refused(self) -> None:
        """Recover, with the next group, the instances whose write was refused."""
        refused, self._refused = self._refused, {}
        for instance_id in refused:
            self.recover(instance_id)

    def recoveries(self, node: str) -> list[Recover]:
        """Return the writes that recover instances. They are repeated until they are answered."""
        return [Recover(instance_id, node) for instance_id in self._asked]

    def answered(self, instance_id: str) -> None:
        """Take in that the store has answered for an instance."""
        self._asked.pop(instance_id, None)

    def returned(self, instance_id: str) -> tuple[HoldKind, str] | None:
        """Take in that this node owns an instance for certain. Return why it must be held."""
        self._refused.pop(instance_id, None)
        return self._faults.pop(instance_id, None)


class Ownership:
    """Puts instances into the run queue and takes them out, with what runs for them.

    An owned instance is in the run queue. Or its code does not return, and it is blocked. Or the
    outcome of its last write is unknown.
    """

    def __init__(
        self,
        run_queue: RunQueue,
        blocked: BlockedTurns,
        unknown: UnknownOutcomes,
        activities: Activities,
        notices: LogNotices,
        recorder: Recorder,
        *,
        cached: int,
        room: InboxPage,
    ) -> None:
        self._room = room
        self._run_queue = run_queue
        self._blocked = blocked
        self._unknown = unknown
        self._activities = activities
        self._notices = notices
        self._recorder = recorder
        self._cache = ExecutionCache(cached)
        self._releasing = False

    def __len__(self) -> int:
        """How many instances are in the run queue or blocked."""
        return len(self._run_queue) + len(self._blocked)

    def has_nothing_of(self, instance_id: str) -> bool:
        """Return whether this node has nothing of an instance: no turn, no activity, no cached
        execution.
        """
        return not (
            instance_id in self._run_queue
            or instance_id in self._blocked
            or instance_id in self._unknown
            or instance_id in self._cache
            or instance_id in self._activities.unrecorded
            or self._activities.of(instance_id)
        )

    # --- coming ---

    def adopt(self, snapshot: Snapshot, now: int) -> None:
        """Take up an instance that the store has given to this node, or given back."""
        instance = OwnedInstance.of(snapshot, self._room)
        instance_id = instance.instance_id
        stale = self._run_queue.get(instance_id)
        if stale is not None:
            # It was taken away and came back before this node noticed.
            self._forget(stale)
            self._activities.unrecorded.pop(instance_id, None)
        self._blocked.drop(instance_id)
        instance.releasing = self._releasing
        instance.poison = self._unknown.returned(instance_id)
        number = instance.current.number
        for key, attempt in self._activities.of(instance_id):
            if (key.incarnation, key.execution) == (instance.incarnation, number):
                instance.still_running[key.event_id] = attempt
            else:
                self._activities.abort(key)
        if instance_id in self._activities.unrecorded:
            self._take_up_ends(instance)
        instance.execution = self._cache.take(instance)
        if instance.execution is not None:
            for key in restore_activities(instance, now):
                self._activities.abort(key)
        if instance.opened:
            self._recorder.looked_up(
                instance.kind.name,
                instance.current.version,
                warm=instance.execution is not None,
            )
        self._run_queue.put(instance)
        self._run_queue.make_ready(instance_id)

    def _take_up_ends(self, instance: OwnedInstance) -> None:
        """Have the next step take in the ends that no write has recorded."""
        ends = self._activities.unrecorded_ends(instance.instance_id)
        del self._activities.unrecorded[instance.instance_id]
        for ended in ends:
            key = ended.key
            if (key.incarnation, key.execution) == (instance.incarnation, instance.current.number):
                instance.still_running[key.event_id] = ended.attempt
        self._activities.postpone(ends)

    def recovered(self, instance_id: str, snapshot: Snapshot | None, now: int) -> None:
        """Take in the answer to a recovery: the instance as the store has it, if this node owns
        it.
        """
        self._unknown.answered(instance_id)
        if snapshot is not None:
            self.adopt(snapshot, now)
            return
        self._unknown.returned(instance_id)
        self._activities.forget_reports(instance_id)
        self._activities.abort_all(instance_id)

    def put_back(self, by: int, since: int, now: int) -> None:
        """Correct all times after the store's clock was put back. Blocked instances find it out by
        themselves.
        """
        self._run_queue.put_back(by, since, now)
        self._cache.put_back(by, since)

    # --- leaving ---

    def release(self, instance: OwnedInstance) -> None:
        """Take out an instance that a write has released, and cache its execution."""
        self._run_queue.remove(instance.instance_id)
        self._activities.unrecorded.pop(instance.instance_id, None)
        self._cache.add(instance)

    def refused(self, instance: OwnedInstance) -> None:
        """Drop an instance whose write was refused: nothing of the step has happened (I6).

        Most often another node owns it by now, so what runs for it is aborted. But an operator may
        have raised the revision, to come in between the writes of a busy instance. So the ends of
        its activities are kept until the next poll finds out.
        """
        if not self._run_queue.holds(instance):
            return
        self._forget(instance)
        self._unknown.refused(instance.instance_id)
        ends = self._activities.unrecorded_ends(instance.instance_id)
        self._activities.abort_all(instance.instance_id, but={ended.key for ended in ends})

    def unanswered(self, instance: OwnedInstance) -> None:
        """Release an instance whose last write has an unknown outcome, and recover it (rule 9)."""
        if self._run_queue.holds(instance):
            self._forget(instance)
            self._unknown.recover(instance.instance_id)

    def hold_as_stored(self, instance: OwnedInstance, kind: HoldKind, error: Exception) -> None:
        """Hold an instance whose step has failed: recover its row, and hold it as it stands."""
        instance_id = instance.instance_id
        self._forget(instance)
        if instance.poison is None:
            self._unknown.recover_to_hold(instance_id, kind, describe_error(error))
            return
        # Not even the hold could be written.
        has_early_ends = not instance.attempts and instance_id in self._activities.unrecorded
        self._activities.unrecorded.pop(instance_id, None)
        if has_early_ends:
            # Perhaps the store refuses an end that the hold would keep.
            self._unknown.recover_to_hold(instance_id, *instance.poison)
            return
        # Leave it alone; the next ownership check tries once more.
        if self._notices.is_news(instance_id, f"cannot be held: {error}"):
            log_instance(
                logging.ERROR, instance.identity, "cannot be held: %s", escaped(str(error))
            )
        self._activities.abort_all(instance_id)

    def taken_away(self, instance_id: str, incarnation: str) -> None:
        """Drop an instance that is not this node's, if it has it in this life: an operator has
        taken it, or its start was refused.
        """
        instance = self._run_queue.get(instance_id)
        if instance is not None and instance.incarnation == incarnation:
            self._drop(instance_id)
        if self._blocked.incarnation_of(instance_id) == incarnation:
            self._drop(instance_id)

    def compare(self, stored: Iterable[str]) -> None:
        """Match the owned instances with those that this node owns by the store (rule 13)."""
        owned = dict.fromkeys(stored)
        known = dict.fromkeys(
            (*(instance.instance_id for instance in self._run_queue), *self._blocked)
        )
        for instance_id in owned:
            if instance_id not in known:
                self._unknown.recover(instance_id)
        for instance_id in known:
            if instance_id not in owned:
                self._drop(instance_id)  # taken away by an operator or by other nodes

    def release_all(self) -> None:
        """Release every instance with its next write, and those that are claimed from now on."""
        self._releasing = True
        self._blocked.release_all()
        for instance in self._run_queue:
            instance.releasing = True
            self._run_queue.make_ready(instance.instance_id)

    def clear(self) -> None:
        """Forget all instances, and all cached executions."""
        for instance in self._run_queue:
            self._cache.discard(instance)
        for late in self._blocked.take_late_results():
            self._cache.discard(late.turn.instance)
        self._run_queue.clear()
        self._cache.clear()
        self._blocked.clear()
        self._unknown.clear()

    def _drop(self, instance_id: str) -> None:
        """Forget an instance that is not this node's any longer, and abort what runs for it."""
        instance = self._run_queue.get(instance_id)
        if instance is not None:
            self._forget(instance)
        self._blocked.drop(instance_id)
        self._activities.unrecorded.pop(instance_id, None)
        self._activities.abort_all(instance_id)

    def _forget(self, instance: OwnedInstance) -> None:
        self._run_queue.remove(instance.instance_id)
        self._cache.discard(instance)

    # --- code that does not return ---

    def abandon(self, running: RunningTurn | ClosingExecution) -> bool:
        """Go on without code that does not return; an instance is blocked then. Return whether it
        has not returned.
        """
        if not self._blocked.abandon(running):
            return False
        if isinstance(running, RunningTurn):
            instance_id = running.instance.instance_id
            self._run_queue.remove(instance_id)
            running.known_reports = len(self._activities.unrecorded.get(instance_id, ()))
        return True

    def take_late_results(self) -> list[tuple[OwnedInstance, Result]]:
        """Put the instances whose code has returned back into the run queue. Return their
        results.
        """
        taken: list[tuple[OwnedInstance, Result]] = []
        for late in self._blocked.take_late_results():
            instance = late.turn.instance
            if self._blocked.unblock(late.turn):
                instance.armed = None
                self._run_queue.put(instance)
                self._postpone_reports(late.turn)
                taken.append((instance, late.result))
            else:
                self._cache.discard(instance)
        return taken

    def _postpone_reports(self, turn: RunningTurn) -> None:
        """Have the next step take in what came while the instance was blocked."""
        reports = self._activities.unrecorded.get(turn.instance.instance_id, [])
        self._activities.postpone(reports[turn.known_reports :])
        del reports[turn.known_reports :]

    # --- what leaves memory ---

    @property
    def has_discarded(self) -> bool:
        """Whether an execution has left memory and waits to be closed."""
        return self._cache.has_discarded

    def close_discarded(self) -> None:
        """Close the executions that have left memory. Their ``finally`` blocks are code, and may
        block.

        Raises:
            TurnAbandoned: the engine has gone on meanwhile.
        """
        while (execution := self._cache.take_discarded()) is not None:
            self._blocked.close(execution)
