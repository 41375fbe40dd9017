"""Changes on their way to the store, with what is to be done about their outcomes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from orchestra.engine.messages import Reply, RunActivity, Submit
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.stepping import Step
from orchestra.errors import OutcomeUnknown, StoreError
from orchestra.store.changes import Append, Cancel, Change, Start, size_of

__all__ = ["InFlightWrite", "InFlightWrites", "refusal"]

_RETRIES_AFTER_UNKNOWN: Final = 5


@dataclass(slots=True)
class InFlightWrite:
    """A change under way: of a desk's step, of a client (``submit``), or the engine's own question
    to the store.
    """

    change: Change
    instance: OwnedInstance | None = None
    step: Step | None = None
    submit: Submit | None = None
    unknown: int = 0
    """How often the reply to a client's change was lost."""


class InFlightWrites:
    """The group that is being gathered or committed, and the changes that wait for one: of clients,
    and of the engine.

    Args:
        most: how many steps make a group full; as many of those that wait come on top.
        most_bytes: how large a group gets, about.
        blocking: the names of activities that need a thread.
    """

    def __init__(self, most: int, most_bytes: int, blocking: Collection[str] = ()) -> None:
        self._most = most
        self._blocking = blocking
        self._most_bytes = most_bytes
        self._group: list[InFlightWrite] = []
        self._bytes = 0
        self._waiting: list[InFlightWrite] = []
        self.promised: int = 0
        """Activities that begin here once the steps of the group stand."""
        self.promised_threads: int = 0
        """How many of these need a thread."""
        self.leaving: int = 0
        """Instances that leave this node once the steps of the group stand."""

    @property
    def has_any(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self._group or self._waiting)

    @property
    def changes(self) -> list[Change]:
        """The group as it is."""
        return [sent.change for sent in self._group]

    # --- gathering a group ---

    def begin(self, questions: Iterable[Change]) -> None:
        """Begin a group with what is asked of the store before anything else."""
        self._group = [InFlightWrite(change) for change in questions]
        self._bytes = 0

    def add(self, sent: InFlightWrite) -> None:
        """Put a change into the group."""
        self._group.append(sent)
        self._bytes += size_of(sent.change)
        if sent.step is not None:
            for message in sent.step.outbox:
                if isinstance(message, RunActivity):
                    self.promised += 1
                    self.promised_threads += message.name in self._blocking
            self.leaving += not sent.step.keep

    @property
    def is_full(self) -> bool:
        """Whether the group takes no more steps."""
        return len(self._group) >= self._most or self._bytes >= self._most_bytes

    def add_waiting(self) -> bool:
        """Put into the group what waits, while there is room, and one change in any case. Return
        whether there was any.
        """
        taken = 0
        for sent in self._waiting:
            if taken and (len(self._group) >= 2 * self._most or self._bytes >= self._most_bytes):
                break
            self.add(sent)
            taken += 1
        del self._waiting[:taken]
        return taken > 0

    def land(self) -> list[InFlightWrite]:
        """Return the group, whose outcomes are known. There is none any more."""
        group, self._group = self._group, []
        self.promised = self.promised_threads = self.leaving = 0
        return group

    # --- what waits for a group ---

    def queue(self, change: Change, submit: Submit | None = None) -> None:
        """Have a change committed with one of the next groups."""
        self._waiting.append(InFlightWrite(change, submit=submit))

    def ask_again(self, sent: InFlightWrite) -> bool:
        """Have a client's change committed again whose reply was lost. Return whether that would
        tell what became of it.
        """
        # Starts and messages carry ids of their sender, cancels are idempotent: the same again
        # tells the truth.
        if (
            not isinstance(sent.change, (Start, Append, Cancel))
            or sent.unknown >= _RETRIES_AFTER_UNKNOWN
        ):
            return False
        sent.unknown += 1
        self._waiting.append(sent)
        return True

    def keep_clients(self) -> None:
        """Drop all but clients' changes, which are not the node's own: they are asked again, with
        the next group.
        """
        self._waiting = self.drop_clients()
        self.land()

    def drop_clients(self) -> list[InFlightWrite]:
        """Drop clients' changes, and return them."""
        clients = [sent for sent in (*self._group, *self._waiting) if sent.submit is not None]
        self._group = [sent for sent in self._group if sent.submit is None]
        self._waiting = [sent for sent in self._waiting if sent.submit is None]
        return clients


def refusal(sent: InFlightWrite, error: StoreError) -> Reply:
    """Answer a client whose change could not be committed. Where an earlier try may have been,
    nobody knows (I1).
    """
    assert sent.submit is not None
    if sent.unknown and not isinstance(error, OutcomeUnknown):
        unknown = OutcomeUnknown(
            f"the reply to the commit was lost, and asking again failed: {error}"
        )
        unknown.__cause__ = error
        return Reply(sent.submit.token, unknown)
    return Reply(sent.submit.token, error)
