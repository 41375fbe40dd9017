"""How orchestration code ends its execution."""

from __future__ import annotations

from typing import Any

from orchestra.error_info import encoded_details, error_info
from orchestra.errors import Cancelled, ContinueAsNew, ContinueAsNewSwallowed, Failure, PayloadError
from orchestra.events import (
    ContinuedAsNew,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    TerminalEvent,
)
from orchestra.registry import OrchestrationDefinition
from orchestra.replay.commands import Commands
from orchestra.replay.failing import held_by, is_declared
from orchestra.scheduler import Task

__all__ = ["ending_of"]


def ending_of(
    root: Task[Any], definition: OrchestrationDefinition, commands: Commands, *, cancelled: bool
) -> TerminalEvent:
    """Return how code has ended.

    Args:
        root: the branch that has run the orchestration function.
        definition: the orchestration.
        commands: what the code has asked for.
        cancelled: whether the code got a cancel.

    Raises:
        TurnHeld: it has raised an error that is no declared failure. A history that ended by it all
            the same is repeated as it is.
    """
    number, at, boundary = commands.journal.next_id, commands.time.now, commands.boundary
    error = root.error
    if isinstance(error, Cancelled) and cancelled:
        # Also if it came while a boundary unwound.
        return ExecutionCancelled(number, at, error.reason)
    if boundary is not None and not isinstance(error, ContinueAsNew):
        how = f"raised {error!r}" if error is not None else "returned"
        error = ContinueAsNewSwallowed(
            f"{commands.name!r} {commands.version} called continue_as_new and then {how}; let "
            "ContinueAsNew pass through"
        )
    match error:
        case None:
            try:
                output = definition.result.encode_output(
                    root.result(),
                    subject=f"output of orchestration {commands.name!r}",
                    limit=commands.limits.max_payload,
                    exact=commands.is_exact,
                )
            except PayloadError as fault:
                return _failure(fault, definition, commands)
            return ExecutionCompleted(number, at, output)
        case ContinueAsNew() if boundary is not None:
            state, version = boundary
            return ContinuedAsNew(number, at, version, state)
        case _:
            return _failure(error, definition, commands)


def _failure(
    error: BaseException, definition: OrchestrationDefinition, commands: Commands
) -> ExecutionFailed:
    journal = commands.journal
    if isinstance(error, Failure) and not journal.replaying:
        try:
            encoded_details(error)
        except PayloadError as fault:
            error = fault.with_traceback(error.__traceback__)
    info = error_info(error)
    if not journal.replaying and not is_declared(error, definition.failures):
        raise held_by(
            error, info, commands.line(), commands.version, commands.gathered.extras.unreadable
        ) from None
    return ExecutionFailed(journal.next_id, commands.time.now, info)
