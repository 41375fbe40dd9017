"""Performs operations: reads, commits and waits as their steps ask, without blocking the event
loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import anyio

from orchestra.client.port import Port
from orchestra.errors import OrchestraError
from orchestra.operations.steps import (
    Delete,
    DeleteAll,
    Find,
    FindExecutions,
    FindMessages,
    Get,
    Operation,
    Pause,
    ReadCatalogue,
    ReadHistory,
    SetNudge,
    SetPin,
    Step,
    Submit,
    SubmitAll,
)
from orchestra.store.changes import ClientChange
from orchestra.store.nudges import Nudged
from orchestra.store.outcomes import Outcome
from orchestra.store.port import Provider

__all__ = ["perform"]

T = TypeVar("T")


async def perform(operation: Operation[T], port: Port, provider: Provider) -> T:
    """Perform an operation to its end, and return its result.

    Raises:
        OrchestraError: the operation ended with it, or left an error of one of its steps to the
            caller.
    """
    answer: Any = None
    error: Exception | None = None
    try:
        while True:
            try:
                step = operation.send(answer) if error is None else operation.throw(error)
            except StopIteration as end:
                return end.value
            answer = error = None
            try:
                answer = await _answer(step, port, provider)
            except Exception as raised:  # noqa: BLE001 - the operation decides what an error means
                error = raised
    finally:
        operation.close()


async def _answer(step: Step[Any], port: Port, provider: Provider) -> Any:
    directory, admin = provider.directory, provider.admin
    match step:
        case Get(instance_id):
            return await port.call(lambda: directory.get(instance_id))
        case Find(query):
            return await port.call(lambda: directory.list(query))
        case FindMessages(instance_id, after, limit):
            return await port.call(lambda: directory.messages(instance_id, after, limit))
        case FindExecutions(instance_id, after, limit):
            return await port.call(lambda: directory.executions(instance_id, after, limit))
        case ReadHistory(instance_id, execution):
            return await port.call(lambda: directory.history(instance_id, execution))
        case ReadCatalogue():
            return await port.call(directory.catalogue)
        case Submit(change):
            return await port.submit(change)
        case SubmitAll(changes):
            return await _submit_all(changes, port)
        case SetPin(instance_id, version, by, reason, until, unless_same):
            is_done = await port.call(
                lambda: admin.set_pin(
                    instance_id, version, by=by, reason=reason, until=until, unless_same=unless_same
                )
            )
            if is_done:
                port.written_past()
            return is_done
        case SetNudge(instance_id, incarnation, execution, by, reason):
            outcome = await port.call(
                lambda: admin.nudge(instance_id, incarnation, execution, by=by, reason=reason)
            )
            if outcome is Nudged.ASKED:
                port.written_past()
            return outcome
        case Delete(instance_id, incarnation, by, reason):
            return await port.call(
                lambda: admin.delete(instance_id, incarnation, by=by, reason=reason)
            )
        case DeleteAll(instances, by, reason):
            return await port.call(lambda: admin.delete_all(instances, by=by, reason=reason))
        case Pause(seconds):
            return await anyio.sleep(seconds)
        case _:  # pragma: no cover
            raise AssertionError(f"unknown step {step}")


async def _submit_all(
    changes: Sequence[ClientChange], port: Port
) -> list[Outcome | OrchestraError]:
    """Submit changes at once, so that they are committed in one group."""
    outcomes: dict[int, Outcome | OrchestraError] = {}

    async def submit(position: int, change: ClientChange) -> None:
        try:
            outcomes[position] = await port.submit(change)
        except OrchestraError as error:
            outcomes[position] = error

    async with anyio.create_task_group() as group:
        for position, change in enumerate(changes):
            group.start_soon(submit, position, change)
    return [outcomes[position] for position in range(len(changes))]
