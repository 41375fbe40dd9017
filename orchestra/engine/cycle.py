"""One cycle: maintain, step, commit, apply; and what happens while the store does not answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Final

from orchestra.clock import Clock
from orchestra.engine.engine import Engine
from orchestra.engine.membership import Membership
from orchestra.engine.messages import Reply, Submit, ToEngine, ToShell
from orchestra.errors import (
    LibraryTooOld,
    NodeBuried,
    OrchestraError,
    OutcomeUnknown,
    SchemaMismatch,
    StoreCorrupt,
    StoreError,
    StoreReplaced,
    StoreUnavailable,
)
from orchestra.levels import Levels
from orchestra.resolution import next_level
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import Change
from orchestra.store.outcomes import Outcome
from orchestra.store.port import Store
from orchestra.telemetry import Recorder, engine_logger

__all__ = ["Cycle", "commit_group"]

_FIRST_BACKOFF: Final = 0.05
_LONGEST_BACKOFF: Final = 5.0
_LOG_EVERY: Final = 30.0
_DELETION_PAUSE: Final = 0.02
"""Seconds between two batches of deletions, so that a backlog of them lets other work through."""


def commit_group(
    store: Store, changes: Sequence[Change]
) -> tuple[int | None, list[Outcome | StoreError]]:
    """Commit a group. Return the store's time, and an outcome or a final error for each change.

    A group that fails for good is halved until the faulty change is alone (rule 8).

    Raises:
        StoreError: nothing was written, and trying again later may help.
    """
    try:
        commit = store.commit(changes)
    except OutcomeUnknown as error:
        return None, [error] * len(changes)
    except StoreError as error:
        if error.retryable or isinstance(error, (StoreCorrupt, SchemaMismatch)):
            raise
        return _halve(store, changes, error)
    except Exception as error:  # noqa: BLE001 - a value that breaks the driver concerns its change alone
        return _halve(store, changes, StoreError(f"{type(error).__name__}: {error}"))
    return commit.now, list(commit.outcomes)


def _halve(
    store: Store, changes: Sequence[Change], error: StoreError
) -> tuple[int | None, list[Outcome | StoreError]]:
    if len(changes) == 1:
        return None, [error]
    middle = len(changes) // 2
    first_now, first = commit_group(store, changes[:middle])
    try:
        second_now, second = commit_group(store, changes[middle:])
    except StoreError:
        # The first half stands, so the group cannot be tried again as a whole. The engine finds
        # out about the rest by writing.
        return first_now, [
            *first,
            *[OutcomeUnknown("the store failed in the middle of a group")]
            * (len(changes) - middle),
        ]
    return second_now or first_now, [*first, *second]


class Cycle:
    """Drives an engine over a store. It is synchronous: the caller has the thread and waits.

    Args:
        poll: seconds between two looks at the store without a hint.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        membership: Membership,
        clock: Clock,
        *,
        poll: float = 1.0,
        recorder: Recorder | None = None,
        check_joined: Callable[[Catalogue], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._check_joined = check_joined
        self._engine = engine
        self._membership = membership
        self._clock = clock
        self._poll = poll
        self._recorder = recorder or Recorder()
        self._next_poll = 0.0
        self._next_check = 0.0
        self._next_expiry = inf
        self._retry_at = 0.0
        self._backoff = 0.0
        self._unanswered = 0
        """How many groups in a row got no answer."""
        self._logged_at: float | None = None
        self._is_failing = False
        self._error = StoreError("the store has not been asked yet")
        self._has_left = False
        self._refused_level = 0

    def begin(self) -> None:
        """Join the store, and release at once what a dead predecessor owned.

        Raises:
            StoreError: the store cannot be used.
            OrchestraError: ``check_joined`` refuses the start; the node has left again.
        """
        self._engine.heard_time(self._membership.join())
        catalogue = self._store.catalogue()
        if self._membership.bury_the_dead(catalogue):
            catalogue = self._store.catalogue()
        try:
            self._check_joined(catalogue)
        except OrchestraError:
            with suppress(StoreError):  # else its lease runs out
                self._membership.leave()
            raise
        self._recorder.taken_over(self._membership.sweep(at_once=True))
        self._engine.refresh(catalogue)
        self._membership.levels = catalogue.levels
        if self._raise_level():
            self._engine.refresh(self._store.catalogue())
        self._next_poll = self._clock.monotonic() + self._poll
        self._next_check = self._clock.monotonic() + self._engine.node.lease / 1e6

    def run(self, received: Sequence[ToEngine]) -> list[ToShell]:
        """Do one cycle with what has come in. Return the messages for the shell.

        While the store fails, the cycle waits with growing pauses, and clients get the error at
        once.

        Raises:
            LibraryTooOld: newer libraries have ruled out ones as old as this. :meth:`end` releases
                what the node owns.
        """
        if self._clock.monotonic() < self._retry_at:
            return self._while_failing(received)
        outbox: list[ToShell] = []
        taken = False
        try:
            self._maintain()
            if self._engine.in_flight:  # the group that could not be committed last time
                # Not in a local variable: if the step's code does not return, another thread takes
                # them.
                self._engine.put_back(self._commit(self._engine.in_flight))
            taken = True
            changes = self._engine.step(received)
            outbox.extend(self._engine.take_outbox())
            if changes:
                outbox.extend(self._commit(changes))
            if not self._unanswered:
                self._recovered()
        except (NodeBuried, StoreReplaced) as error:
            engine_logger.warning("%s", error)
            outbox.extend(self._be_reborn(leave=isinstance(error, StoreReplaced)))
            if not taken:
                outbox.extend(self.run(received))
        except LibraryTooOld:
            raise
        except StoreError as error:
            outbox.extend(self._failed(error, [] if taken else received))
        return [*self._engine.take_outbox(), *outbox]

    def _be_reborn(self, *, leave: bool) -> list[ToShell]:
        """Go on under a new id: this node was buried, or the store has lost commits. All memory is
        void.

        With ``leave``, release what the old id owns by the store. No other node would bury it
        before its lease has run out.
        """
        outbox: list[ToShell] = []
        try:
            if leave:
                self._membership.leave()
            outbox.extend(self._engine.reborn(self._membership.rejoin()))
            self._engine.refresh(self._store.catalogue())
        except LibraryTooOld:
            raise
        except StoreError as error:
            outbox.extend(self._failed(error, []))
        return outbox

    def idle_seconds(self) -> float:
        """Return for how many seconds the cycle has nothing to do unless something comes in."""
        moment = self._clock.monotonic()
        if moment < self._retry_at:
            return self._retry_at - moment
        if self._engine.has_work:
            return 0.0
        try:
            due = self._engine.next_due()
        except StoreError as error:
            self._failed(error, [])
            return self._backoff
        wait = min(self._next_poll, self._next_expiry, self._membership.next_due()) - moment
        if due is not None:
            wait = min(wait, (due - self._engine.now) / 1e6)
        return max(0.0, wait)

    def poll_now(self) -> None:
        """Look at the store in the next run: something was written past the engine."""
        self._next_poll = 0.0

    def on_change(self, ring: Callable[[], None] | None) -> None:
        """Have the store call ``ring``, from any thread, when there is something to :meth:`listen`
        to. Not all stores can.
        """
        self._store.on_change(ring)

    def listen(self) -> bool:
        """Take the store's hint that another process may have written. Return whether there was
        one.

        A store that fails is left alone.
        """
        if self._clock.monotonic() < self._retry_at:
            return False
        try:
            changed = self._store.changed()
        except StoreError as error:
            self._failed(error, [])
            return False
        if changed:
            self._engine.look()
        return changed

    def end(self) -> list[ToShell]:
        """Leave the store, which releases what is still owned.

        Raises:
            TurnAbandoned: another thread has gone on, and must call this once more.
        """
        if not self._has_left:
            self._has_left = True
            try:
                self._membership.leave()
            except StoreError as error:
                engine_logger.warning(
                    "could not leave the store in order; its lease will run out: %s", error
                )
        self._engine.close()
        self._recorder.owned(0)
        return self._engine.take_outbox()

    def _commit(self, changes: Sequence[Change]) -> list[ToShell]:
        begun, asked = self._recorder.moment(), self._engine.now
        now, outcomes = commit_group(self._store, changes)
        self._recorder.committed(changes, begun)
        if now is not None:
            self._engine.heard_time(now, asked)
        self._note_answer(
            next((outcome for outcome in outcomes if isinstance(outcome, OutcomeUnknown)), None)
        )
        return self._engine.apply(outcomes)

    def _maintain(self) -> None:
        if self._membership.renew(self._engine.load):
            self._require(self._membership.levels)
            self._raise_level()
        moment = self._clock.monotonic()
        if moment >= self._next_poll:
            self._next_poll = moment + self._poll
            asked = self._engine.now
            catalogue = self._store.catalogue()
            self._require(catalogue.levels)
            buried = self._membership.bury_the_dead(catalogue)
            swept = self._membership.sweep(at_once=buried > 0)
            self._recorder.taken_over(swept)
            if swept or buried:
                catalogue = self._store.catalogue()
            self._engine.refresh(catalogue, asked)
            if self._engine.misses_nodes():  # it has left, or another node has buried it
                self._recorder.taken_over(self._membership.sweep(at_once=True))
            self._engine.look()
            self._engine.check_tasks()
            self._recorder.owned(self._engine.owned)
            self._next_expiry = moment
        if self._engine.has_parked_ahead:
            self._engine.rouse()
        if moment >= self._next_check:
            self._next_check = moment + self._engine.node.lease / 1e6
            self._engine.check_ownership()
        if moment >= self._next_expiry:
            self._expire()

    def _require(self, levels: Levels) -> None:
        self._engine.library.require(levels, "the store")

    def _raise_level(self) -> bool:
        """Raise the store's write level once all living nodes read it. One of them does (rule
        37).
        """
        level = next_level(self._engine.node, self._engine.catalogue)
        if level is None or level <= max(self._membership.levels.write, self._refused_level):
            return False
        try:
            levels = self._store.raise_level(self._engine.library.target(level))
        except StoreError as error:
            if error.retryable:
                raise
            # The role of this node may not write it; another node's may.
            self._refused_level = level
            engine_logger.warning(
                "the store's write level could not be raised to %d: %s", level, error
            )
            return False
        if levels.write == level:
            engine_logger.info(
                (
                    "the store is written at level %d from now on; libraries below level %d are "
                    "refused"
                ),
                *levels,
            )
        return True

    def _expire(self) -> None:
        """Delete a few of the ended instances whose retention has run out. Any node may: that takes
        neither code nor an owner.
        """
        self._next_expiry = inf  # until the next poll
        try:
            if self._store.expire():
                self._next_expiry = self._clock.monotonic() + _DELETION_PAUSE
        except StoreError as error:
            if error.retryable or isinstance(error, (StoreCorrupt, SchemaMismatch)):
                raise
            engine_logger.error("ended instances could not be deleted: %s", error)

    # --- a store that fails ---

    def _failed(self, error: StoreError, received: Sequence[ToEngine]) -> list[ToShell]:
        self._pause(error)
        return [*self._while_failing(received), *self._engine.refuse_clients(error)]

    def _note_answer(self, unknown: OutcomeUnknown | None) -> None:
        """Count groups without an answer, and pause after the second in a row.

        The outcome of the first is asked at once (rule 9). A device that fails in every commit
        would be asked without end.
        """
        self._unanswered = 0 if unknown is None else self._unanswered + 1
        if unknown is not None and self._unanswered > 1:
            self._pause(StoreUnavailable(f"the store answers no commit: {unknown}"))

    def _pause(self, error: StoreError) -> None:
        """Leave the store alone for a while, longer each time."""
        moment = self._clock.monotonic()
        self._backoff = min(_LONGEST_BACKOFF, max(_FIRST_BACKOFF, self._backoff * 2))
        self._retry_at = moment + self._backoff
        # The store is asked first thing then, so that a cycle without work does not count as a
        # recovery.
        self._next_poll = min(self._next_poll, self._retry_at)
        self._error = error
        self._recorder.store_failed()
        if self._logged_at is None or moment - self._logged_at > _LOG_EVERY:
            engine_logger.warning("the store does not take writes; waiting for it: %s", error)
            self._logged_at, self._is_failing = moment, True

    def _while_failing(self, received: Sequence[ToEngine]) -> list[ToShell]:
        """Keep what activities have reported. Tell clients at once that nothing was written."""
        refused: list[ToShell] = [
            Reply(message.token, self._error) for message in received if isinstance(message, Submit)
        ]
        self._engine.postpone([message for message in received if not isinstance(message, Submit)])
        return refused

    def _recovered(self) -> None:
        self._backoff = 0.0
        # A store that comes and goes must not fill the log: the next warning waits for its time.
        if self._is_failing:
            engine_logger.info("the store takes writes again")
            self._is_failing = False
