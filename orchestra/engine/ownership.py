"""What this node owns: how an instance comes onto its desk, and the ways in which it leaves it."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from orchestra.engine.activities import Activities
from orchestra.engine.blocked_turns import BlockedTurns, ClosingExecution, Result, RunningTurn
from orchestra.engine.execution_cache import ExecutionCache
from orchestra.engine.log_notices import LogNotices
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.run_queue import RunQueue
from orchestra.engine.stepping import Stepper, describe_error
from orchestra.engine.unknown_outcomes import UnknownOutcomes
from orchestra.store.kinds import HoldKind
from orchestra.store.messages import InboxPage
from orchestra.store.snapshots import Snapshot
from orchestra.telemetry import Recorder, escaped, log_instance

__all__ = ["Ownership"]


class Ownership:
    """Puts instances onto the agenda and takes them off, with what of them is in memory and what
    runs for them.

    An owned instance is on the agenda; or *away*, its code not having returned; or in *doubt*,
    until the store has told whose it is.
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
        warm: int,
        room: InboxPage,
    ) -> None:
        self._room = room
        self._run_queue = run_queue
        self._blocked = blocked
        self._unknown = unknown
        self._activities = activities
        self._notices = notices
        self._recorder = recorder
        self._cache = ExecutionCache(warm)
        self._releasing = False

    def __len__(self) -> int:
        """How many instances are on the desk or away."""
        return len(self._run_queue) + len(self._blocked)

    # --- coming ---

    def adopt(self, snapshot: Snapshot, now: int) -> None:
        """Take up an instance that the store has given to this node, or given back."""
        instance = OwnedInstance.of(snapshot, self._room)
        stale = self._run_queue.get(instance.instance_id)
        if stale is not None:  # it was taken away and came back before this node noticed
            self._forget(stale)
        self._activities.keep_unrecorded(self._blocked.disown(instance.instance_id))
        instance.releasing = self._releasing
        instance.poison = self._unknown.is_back(instance.instance_id)
        number = instance.current.number
        for key, attempt in self._activities.of(instance.instance_id):
            if (key.incarnation, key.execution) == (instance.incarnation, number):
                instance.still_running[key.event_id] = attempt
            else:
                self._activities.abort(key)
        instance.execution = self._cache.take(instance)
        if instance.execution is not None:
            for key in Stepper.restore_activities(instance, now):
                self._activities.abort(key)
        if instance.opened:
            self._recorder.looked_up(
                instance.kind.name, instance.current.version, warm=instance.execution is not None
            )
        self._run_queue.put(instance)
        self._run_queue.make_ready(instance.instance_id)

    def recovered(self, instance_id: str, snapshot: Snapshot | None, now: int) -> None:
        """Take in whose an instance is that was asked for: this node's, as the store has it, or
        not.
        """
        self._unknown.answered(instance_id)
        if snapshot is not None:
            self.adopt(snapshot, now)
        else:
            self._unknown.is_lost(instance_id)

    def put_back(self, by: int, since: int, now: int) -> None:
        """Take note that the store's clock was put back, which was wrong ``since``. What is away
        finds it out by itself.
        """
        self._run_queue.put_back(by, since, now)
        self._cache.put_back(by, since)

    # --- leaving ---

    def release(self, instance: OwnedInstance) -> None:
        """Take an instance off the desk that a write has released; its execution is kept for when
        it comes back.
        """
        self._run_queue.remove(instance.instance_id)
        self._cache.keep(instance)

    def refused(self, instance: OwnedInstance) -> None:
        """Let go of an instance whose write was refused: nothing of the step has happened (I6)."""
        if self._run_queue.holds(instance):
            self._forget(instance)
            self._unknown.suspect(instance)

    def unanswered(self, instance: OwnedInstance) -> None:
        """Let go of an instance of whose write nobody knows whether it was committed: ask by
        writing again (rule 9).
        """
        if self._run_queue.holds(instance):
            self._forget(instance)
            self._unknown.ask(instance.instance_id, instance.unacknowledged)

    def hold_as_stored(self, instance: OwnedInstance, kind: HoldKind, error: Exception) -> None:
        """Hold an instance whose desk is ahead of the store by a failed step: get the row back, and
        hold it as it stands.
        """
        self._forget(instance)
        if instance.poison is not None and instance.early:
            self._unknown.ask_to_hold(
                instance.instance_id, *instance.poison
            )  # perhaps what it would keep is what cannot be stored
            return
        if instance.poison is not None:
            # Not even the hold can be written. Leave it alone; the next inventory tries once more.
            if self._notices.is_news(instance.instance_id, f"cannot be held: {error}"):
                log_instance(
                    logging.ERROR, instance.identity, "cannot be held: %s", escaped(str(error))
                )
            self._activities.abort_all(instance.instance_id)
            return
        self._unknown.ask_to_hold(
            instance.instance_id, kind, describe_error(error), instance.unacknowledged
        )

    def taken_away(self, instance_id: str, incarnation: str) -> None:
        """Take note that an operator has written past the owner: if that is this node, its memory
        is void.
        """
        instance = self._run_queue.get(instance_id)
        if instance is not None and instance.incarnation == incarnation:
            self._drop(instance)
        if self._blocked.incarnation_of(instance_id) == incarnation:
            self._disown(instance_id)

    def compare(self, stored: Iterable[str]) -> None:
        """Make good the difference to what the store says that this node owns (rule 13)."""
        owned = dict.fromkeys(stored)
        known = {*(instance.instance_id for instance in self._run_queue), *self._blocked}
        for instance_id in owned:
            if instance_id not in known:
                self._unknown.ask(instance_id)
        # Taken away by an operator or by other nodes: what runs for it is not wanted any more.
        for instance in self._run_queue:
            if instance.instance_id not in owned:
                self._drop(instance)
        for instance_id in [
            instance_id for instance_id in self._blocked if instance_id not in owned
        ]:
            self._disown(instance_id)

    def release_all(self) -> None:
        """Have everything released with its next write, and what is claimed from now on as well."""
        self._releasing = True
        self._blocked.release()
        for instance in self._run_queue:
            instance.releasing = True
            self._run_queue.make_ready(instance.instance_id)

    def clear(self) -> None:
        """Forget everything, owned or kept."""
        for instance in self._run_queue:
            self._cache.discard(instance)
        for late in self._blocked.take_returned():
            self._cache.discard(late.stepping.instance)
        self._run_queue.clear()
        self._cache.clear()
        self._blocked.clear()
        self._unknown.clear()

    def _drop(self, instance: OwnedInstance) -> None:
        """Forget an instance that is not this node's any more."""
        self._forget(instance)
        self._activities.abort_all(instance.instance_id)

    def _disown(self, instance_id: str) -> None:
        """Want an instance no more that is away, and not this node's any more."""
        self._blocked.disown(instance_id)
        self._activities.abort_all(instance_id)

    def _forget(self, instance: OwnedInstance) -> None:
        self._run_queue.remove(instance.instance_id)
        self._cache.discard(instance)

    # --- code that does not return ---

    def abandon(self, running: RunningTurn | ClosingExecution) -> bool:
        """Go on without code that does not return; an instance is away then. Return whether it had
        not returned yet.
        """
        if not self._blocked.leave(running):
            return False
        if isinstance(running, RunningTurn):
            self._run_queue.remove(running.instance.instance_id)
        return True

    def take_returned(self) -> list[tuple[OwnedInstance, Result]]:
        """Put those back onto the agenda whose code has returned, if they are wanted still. Return
        what came of their steps.
        """
        taken: list[tuple[OwnedInstance, Result]] = []
        for late in self._blocked.take_returned():
            instance = late.stepping.instance
            if self._blocked.take_back(late.stepping):
                instance.armed = None
                self._run_queue.put(instance)
                self._activities.keep(late.stepping.kept)
                taken.append((instance, late.result))
            else:
                self._cache.discard(instance)
        return taken

    # --- what leaves memory ---

    @property
    def has_discarded(self) -> bool:
        """Whether something has left memory and is to be closed."""
        return self._cache.has_discarded

    def close_discarded(self) -> None:
        """Close what has left memory. Its ``finally`` blocks are code, and may block: so only where
        a step may be made.

        Raises:
            LeftBehind: the engine has gone on meanwhile.
        """
        while (execution := self._cache.take_discarded()) is not None:
            self._blocked.close(execution)
