"""What this node owns: how an instance comes onto its desk, and the ways in which it leaves it."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from orchestra.engine.absences import Absences, Closing, Result, Stepping
from orchestra.engine.activities import Activities
from orchestra.engine.agenda import Agenda
from orchestra.engine.desk import Desk
from orchestra.engine.doubts import Doubts
from orchestra.engine.notices import Notices
from orchestra.engine.stepping import Stepper, describe_error
from orchestra.engine.warm import WarmExecutions
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
        agenda: Agenda,
        absences: Absences,
        doubts: Doubts,
        activities: Activities,
        notices: Notices,
        recorder: Recorder,
        *,
        warm: int,
        room: InboxPage,
    ) -> None:
        self._room = room
        self._agenda = agenda
        self._absences = absences
        self._doubts = doubts
        self._activities = activities
        self._notices = notices
        self._recorder = recorder
        self._warm = WarmExecutions(warm)
        self._releasing = False

    def __len__(self) -> int:
        """How many instances are on the desk or away."""
        return len(self._agenda) + len(self._absences)

    # --- coming ---

    def adopt(self, snapshot: Snapshot, now: int) -> None:
        """Take up an instance that the store has given to this node, or given back."""
        desk = Desk.of(snapshot, self._room)
        stale = self._agenda.get(desk.instance_id)
        if stale is not None:  # it was taken away and came back before this node noticed
            self._forget(stale)
        self._activities.keep_unrecorded(self._absences.disown(desk.instance_id))
        desk.releasing = self._releasing
        desk.poison = self._doubts.is_back(desk.instance_id)
        number = desk.current.number
        for key, attempt in self._activities.of(desk.instance_id):
            if (key.incarnation, key.execution) == (desk.incarnation, number):
                desk.still_running[key.event_id] = attempt
            else:
                self._activities.abort(key)
        desk.execution = self._warm.take(desk)
        if desk.execution is not None:
            for key in Stepper.remember_tries(desk, now):
                self._activities.abort(key)
        if desk.opened:
            self._recorder.looked_up(
                desk.kind.name, desk.current.version, warm=desk.execution is not None
            )
        self._agenda.put(desk)
        self._agenda.make_ready(desk.instance_id)

    def recovered(self, instance_id: str, snapshot: Snapshot | None, now: int) -> None:
        """Take in whose an instance is that was asked for: this node's, as the store has it, or
        not.
        """
        self._doubts.answered(instance_id)
        if snapshot is not None:
            self.adopt(snapshot, now)
        else:
            self._doubts.is_lost(instance_id)

    def put_back(self, by: int, since: int, now: int) -> None:
        """Take note that the store's clock was put back, which was wrong ``since``. What is away
        finds it out by itself.
        """
        self._agenda.put_back(by, since, now)
        self._warm.put_back(by, since)

    # --- leaving ---

    def let_go(self, desk: Desk) -> None:
        """Take an instance off the desk that a write has released; its execution is kept for when
        it comes back.
        """
        self._agenda.remove(desk.instance_id)
        self._warm.keep(desk)

    def refused(self, desk: Desk) -> None:
        """Let go of an instance whose write was refused: nothing of the step has happened (I6)."""
        if self._agenda.holds(desk):
            self._forget(desk)
            self._doubts.suspect(desk)

    def unanswered(self, desk: Desk) -> None:
        """Let go of an instance of whose write nobody knows whether it was committed: ask by
        writing again (rule 9).
        """
        if self._agenda.holds(desk):
            self._forget(desk)
            self._doubts.ask(desk.instance_id, desk.unacknowledged)

    def hold_as_stored(self, desk: Desk, kind: HoldKind, error: Exception) -> None:
        """Hold an instance whose desk is ahead of the store by a failed step: get the row back, and
        hold it as it stands.
        """
        self._forget(desk)
        if desk.poison is not None and desk.early:
            self._doubts.ask_to_hold(
                desk.instance_id, *desk.poison
            )  # perhaps what it would keep is what cannot be stored
            return
        if desk.poison is not None:
            # Not even the hold can be written. Leave it alone; the next inventory tries once more.
            if self._notices.is_news(desk.instance_id, f"cannot be held: {error}"):
                log_instance(
                    logging.ERROR, desk.identity, "cannot be held: %s", escaped(str(error))
                )
            self._activities.abort_all(desk.instance_id)
            return
        self._doubts.ask_to_hold(desk.instance_id, kind, describe_error(error), desk.unacknowledged)

    def taken_away(self, instance_id: str, incarnation: str) -> None:
        """Take note that an operator has written past the owner: if that is this node, its memory
        is void.
        """
        desk = self._agenda.get(instance_id)
        if desk is not None and desk.incarnation == incarnation:
            self._drop(desk)
        if self._absences.incarnation_of(instance_id) == incarnation:
            self._disown(instance_id)

    def compare(self, stored: Iterable[str]) -> None:
        """Make good the difference to what the store says that this node owns (rule 13)."""
        owned = dict.fromkeys(stored)
        known = {*(desk.instance_id for desk in self._agenda), *self._absences}
        for instance_id in owned:
            if instance_id not in known:
                self._doubts.ask(instance_id)
        # Taken away by an operator or by other nodes: what runs for it is not wanted any more.
        for desk in self._agenda:
            if desk.instance_id not in owned:
                self._drop(desk)
        for instance_id in [
            instance_id for instance_id in self._absences if instance_id not in owned
        ]:
            self._disown(instance_id)

    def release_all(self) -> None:
        """Have everything released with its next write, and what is claimed from now on as well."""
        self._releasing = True
        self._absences.release()
        for desk in self._agenda:
            desk.releasing = True
            self._agenda.make_ready(desk.instance_id)

    def clear(self) -> None:
        """Forget everything, owned or kept."""
        for desk in self._agenda:
            self._warm.discard(desk)
        for late in self._absences.take_returned():
            self._warm.discard(late.stepping.desk)
        self._agenda.clear()
        self._warm.clear()
        self._absences.clear()
        self._doubts.clear()

    def _drop(self, desk: Desk) -> None:
        """Forget an instance that is not this node's any more."""
        self._forget(desk)
        self._activities.abort_all(desk.instance_id)

    def _disown(self, instance_id: str) -> None:
        """Want an instance no more that is away, and not this node's any more."""
        self._absences.disown(instance_id)
        self._activities.abort_all(instance_id)

    def _forget(self, desk: Desk) -> None:
        self._agenda.remove(desk.instance_id)
        self._warm.discard(desk)

    # --- code that does not return ---

    def leave_behind(self, running: Stepping | Closing) -> bool:
        """Go on without code that does not return; an instance is away then. Return whether it had
        not returned yet.
        """
        if not self._absences.leave(running):
            return False
        if isinstance(running, Stepping):
            self._agenda.remove(running.desk.instance_id)
        return True

    def take_returned(self) -> list[tuple[Desk, Result]]:
        """Put those back onto the agenda whose code has returned, if they are wanted still. Return
        what came of their steps.
        """
        taken: list[tuple[Desk, Result]] = []
        for late in self._absences.take_returned():
            desk = late.stepping.desk
            if self._absences.take_back(late.stepping):
                desk.armed = None
                self._agenda.put(desk)
                self._activities.keep(late.stepping.kept)
                taken.append((desk, late.result))
            else:
                self._warm.discard(desk)
        return taken

    # --- what leaves memory ---

    @property
    def has_discarded(self) -> bool:
        """Whether something has left memory and is to be closed."""
        return self._warm.has_discarded

    def close_discarded(self) -> None:
        """Close what has left memory. Its ``finally`` blocks are code, and may block: so only where
        a step may be made.

        Raises:
            LeftBehind: the engine has gone on meanwhile.
        """
        while (execution := self._warm.take_discarded()) is not None:
            self._absences.close(execution)
