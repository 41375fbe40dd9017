"""Runs the code of ready instances, and puts what follows into the group."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from orchestra.engine.activities import Activities
from orchestra.engine.blocked_turns import BlockedTurns, Result
from orchestra.engine.claims import Claims
from orchestra.engine.earlier_ends import EarlierEnds
from orchestra.engine.in_flight import InFlightWrite, InFlightWrites, Outcomes
from orchestra.engine.log_notices import LogNotices
from orchestra.engine.messages import ActivityEnded, RunActivity
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.ownership import Ownership
from orchestra.engine.placement import FreePlaces
from orchestra.engine.run_queue import Pressure, RunQueue
from orchestra.engine.steps.children import resolve_again
from orchestra.engine.steps.holding import describe_error
from orchestra.engine.steps.step import Step
from orchestra.engine.steps.stepper import Stepper
from orchestra.errors import StoreError
from orchestra.events import EventRecord
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import Write
from orchestra.store.kinds import HoldKind
from orchestra.store.messages import InboxPage
from orchestra.store.port import Store
from orchestra.store.routes import Kind
from orchestra.telemetry import log_instance

__all__ = ["Runner"]


class Runner:
    """Steps instances, one at a time, until the group is full.

    Args:
        shape: returns the hash of a version's state, if this node has the version.
        first_turn_took: is told how many seconds an instance of a kind took that was not open.
        room: how much of an inbox is read at once when code waits for more.
    """

    def __init__(
        self,
        store: Store,
        stepper: Stepper,
        run_queue: RunQueue,
        blocked: BlockedTurns,
        activities: Activities,
        in_flight: InFlightWrites,
        claims: Claims,
        ownership: Ownership,
        pressure: Pressure,
        outcomes: Outcomes,
        notices: LogNotices,
        shape: Callable[[str, str], str | None],
        room: InboxPage,
        earlier_ends: EarlierEnds,
        first_turn_took: Callable[[Kind, float], None],
    ) -> None:
        self._store = store
        self._stepper = stepper
        self._run_queue = run_queue
        self._blocked = blocked
        self._activities = activities
        self._in_flight = in_flight
        self._claims = claims
        self._ownership = ownership
        self._pressure = pressure
        self._outcomes = outcomes
        self._notices = notices
        self._shape = shape
        self._earlier_ends = earlier_ends
        self._first_turn_took = first_turn_took
        self._room = room
        self._catalogue = Catalogue(0, (), {}, ())
        self._now = 0
        self._free = FreePlaces(0, 0, 0, ())

    def begin(self, catalogue: Catalogue, now: int, free: FreePlaces) -> None:
        """Begin a cycle.

        Args:
            catalogue: what versions are resolved against.
            now: the store's time.
            free: the places of this node. What is begun is taken from them.
        """
        self._catalogue, self._now, self._free = catalogue, now, free
        if self._earlier_ends.has_any:
            self._earlier_ends.give()

    def step_ready(self) -> None:
        """Step ready instances until the group is full.

        Raises:
            StoreError: the next instance cannot be read now. It stays ready.
            TurnAbandoned: the engine has gone on without this thread.
        """
        self._ownership.close_discarded()
        while not self._in_flight.is_full:
            instance = self._run_queue.next_ready()
            if instance is None:
                break
            try:
                history = self._read_history(instance) if instance.needs_history else ()
                if instance.to_read and instance.poison is None:
                    self._read_inbox(instance)
            except StoreError:
                self._run_queue.make_ready(instance.instance_id)
                raise
            is_loaded = instance.execution is not None or not instance.opened
            early = () if is_loaded else self._activities.unrecorded_ends(instance.instance_id)
            kind = None if instance.opened else instance.kind
            turn = self._blocked.begin(instance)
            result = self._advance(instance, history, early)
            self._blocked.finish(turn, result)
            if kind is not None:
                self._first_turn_took(kind, self._blocked.seconds(turn))
            self.stepped(instance, result)

    # --- reading ---

    def _read_history(self, instance: OwnedInstance) -> Sequence[EventRecord]:
        """Return the history to replay. An instance is held if its history cannot be read for good.

        Raises:
            StoreError: it cannot be read now; the instance is not at fault.
        """
        try:
            return self._store.history(instance.instance_id, instance.current.number)
        except Exception as error:  # noqa: BLE001 - a fault of one instance must not touch the others (I12)
            _poison(instance, error)
            return ()

    def _read_inbox(self, instance: OwnedInstance) -> None:
        """Read the events that the code waits for and that are not in memory.

        Raises:
            StoreError: they cannot be read now; the instance is not at fault.
        """
        after = instance.inbox.read_from(instance.to_read)
        try:
            unread = self._store.unread(instance.instance_id, after, instance.known_seq, self._room)
        except Exception as error:  # noqa: BLE001 - a fault of one instance must not touch the others (I12)
            _poison(instance, error)
            return
        instance.inbox.read(
            unread, () if instance.execution is None else instance.execution.commands.waits.names
        )
        instance.to_read = ()

    # --- running ---

    def _advance(
        self,
        instance: OwnedInstance,
        history: Sequence[EventRecord],
        early: Sequence[ActivityEnded],
    ) -> Result:
        """Run the code of an instance. It must not change the engine, which may go on without
        it.
        """
        try:
            return self._stepper.advance(
                instance,
                self._now,
                self._catalogue,
                history,
                free=self._free,
                crowded=self._pressure.left > 0,
                early=early,
            )
        except Exception as error:  # noqa: BLE001 - a fault of one instance must not touch the others (I12)
            return error

    def stepped(self, instance: OwnedInstance, result: Result) -> None:
        """Put the write of a step into the group, or hold an instance whose step has failed."""
        if isinstance(result, Exception):
            if self._notices.is_news(instance.instance_id, describe_error(result)):
                log_instance(
                    logging.ERROR,
                    instance.identity,
                    "could not be stepped, and will be held",
                    error=result,
                )
            self._ownership.hold_as_stored(instance, HoldKind.INTERNAL, result)
            return
        write, step = result
        write = self._earlier_ends.look(instance, write, step)
        for message in step.outbox:
            if isinstance(message, RunActivity):
                self._free.take(message.name)
        if not step.retain:
            self._free.instances += 1
            self._pressure.given_up()
        if write is None:
            self._outcomes.follow(instance, step)
            return
        if step.extras is not None and step.extras.unresolved:
            write = self._resolve_again(instance, write, step)
        self._in_flight.add(InFlightWrite(write, instance=instance, step=step))
        if write.extras.stops or write.concerns_others:
            self._claims.want()  # what the write makes ready is claimed in the same transaction

    def _resolve_again(self, instance: OwnedInstance, write: Write, step: Step) -> Write:
        """Resolve the starts of unknown names once more: they may have been registered since the
        catalogue was read, and a deploy must not fail an instance.
        """
        assert write.owner is not None
        assert step.extras is not None
        try:
            catalogue = self._store.catalogue()
        except StoreError:
            return write
        return resolve_again(
            instance, write, step.extras.unresolved, catalogue, write.owner, step.now, self._shape
        )


def _poison(instance: OwnedInstance, error: Exception) -> None:
    """Have an instance held that cannot be read.

    Raises:
        StoreError: the store may answer later.
    """
    if isinstance(error, StoreError) and error.retryable:
        raise error
    instance.poison = HoldKind.STORE, describe_error(error)
