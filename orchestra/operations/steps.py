"""The steps of an operation: read the store, commit a change, wait.

An operation is a generator. It yields steps, and the performer sends it their answers, or throws
the errors that they raised::

    def delete(instance_id: str) -> Operation[bool]:
        record = yield from Get(instance_id)
        ...
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from orchestra.errors import OrchestraError
from orchestra.events import EventRecord
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import ClientChange
from orchestra.store.executions import ExecutionRow
from orchestra.store.messages import MessageRow
from orchestra.store.nudges import Nudged
from orchestra.store.outcomes import Outcome
from orchestra.store.queries import InstanceQuery, InstanceRecord

__all__ = [
    "Delete",
    "DeleteAll",
    "Find",
    "FindExecutions",
    "FindMessages",
    "Get",
    "Operation",
    "Pause",
    "ReadCatalogue",
    "ReadHistory",
    "SetNudge",
    "SetPin",
    "Step",
    "Submit",
    "SubmitAll",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Step(Generic[T_co]):
    """One request of an operation. ``answer = yield from step`` makes it, and knows the answer's
    type.
    """

    __slots__ = ()

    def __iter__(self) -> Generator[Step[Any], Any, T_co]:
        return (yield self)


Operation = Generator[Step[Any], Any, T]
"""A command under way. It returns its result."""


@dataclass(frozen=True, slots=True)
class Get(Step[InstanceRecord | None]):
    """Read an instance."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class FindMessages(Step[list[MessageRow]]):
    """Read unread events of an instance, behind a number, in the order of their arrival."""

    instance_id: str
    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class FindExecutions(Step[Sequence[ExecutionRow]]):
    """Read the executions of an instance behind a number, in ascending order."""

    instance_id: str
    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class ReadHistory(Step[Sequence[EventRecord]]):
    """Read the events of an execution."""

    instance_id: str
    execution: int


@dataclass(frozen=True, slots=True)
class Find(Step[Sequence[InstanceRecord]]):
    """Read the instances that a query finds, at most ``query.limit``."""

    query: InstanceQuery


@dataclass(frozen=True, slots=True)
class ReadCatalogue(Step[Catalogue]):
    """Read the catalogue, with the store's time."""


@dataclass(frozen=True, slots=True)
class Submit(Step[Outcome]):
    """Commit a change."""

    change: ClientChange


@dataclass(frozen=True, slots=True)
class SubmitAll(Step[Sequence[Outcome | OrchestraError]]):
    """Commit changes, each alone. The answers have their order; an error takes the place of its
    change.
    """

    changes: Sequence[ClientChange]


@dataclass(frozen=True, slots=True)
class SetPin(Step[bool]):
    """Pin an open instance to a version, or unpin it (``None``). The answer is whether it was done:
    it is open and, with ``unless_same``, had another pin.
    """

    instance_id: str
    version: str | None
    by: str
    reason: str
    until: int | None = None
    unless_same: bool = False


@dataclass(frozen=True, slots=True)
class SetNudge(Step[Nudged]):
    """Ask one execution of an instance to reach its boundary soon."""

    instance_id: str
    incarnation: str
    execution: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Delete(Step[bool]):
    """Delete an ended instance. The answer is whether it was there."""

    instance_id: str
    incarnation: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteAll(Step[Sequence[str]]):
    """Delete ended instances, given as (id, incarnation), in one transaction. The answer is the ids
    of those deleted.
    """

    instances: Sequence[tuple[str, str]]
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Pause(Step[None]):
    """Wait for so many seconds."""

    seconds: float
