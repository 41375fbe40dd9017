"""Changes that are being committed, with what is to be done about their outcomes."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra.engine.desk import Desk
from orchestra.engine.items import Reply, Submit
from orchestra.engine.stepping import Step
from orchestra.errors import OutcomeUnknown, StoreError
from orchestra.providers.rows import Append, Change, Start, Write

__all__ = ["Flight", "refusal", "size_of"]


@dataclass(slots=True)
class Flight:
    """A change under way: of a desk's step, of a client (``submit``), or the engine's own question to the store."""

    change: Change
    desk: Desk | None = None
    step: Step | None = None
    submit: Submit | None = None
    unknown: int = 0
    """How often the reply to a client's change was lost."""


def refusal(flight: Flight, error: StoreError) -> Reply:
    """Answer a client whose change could not be committed. Where an earlier try may have been, nobody knows (I1)."""
    assert flight.submit is not None
    if flight.unknown and not isinstance(error, OutcomeUnknown):
        unknown = OutcomeUnknown(f"the reply to the commit was lost, and asking again failed: {error}")
        unknown.__cause__ = error
        return Reply(flight.submit.token, unknown)
    return Reply(flight.submit.token, error)


def size_of(change: Change) -> int:
    """Return about how many bytes a change brings to the store."""
    match change:
        case Write():
            size = 512 + len(change.state.summary)
            for delta in change.executions:
                for record in delta.events:
                    size += record.size
            for start in change.starts:
                if start.start is not None:
                    size += size_of(start.start)
            return size
        case Start():
            return 512 + len(change.execution.state.data)
        case Append():
            return 256 + len(change.payload.data)
        case _:
            return 128
