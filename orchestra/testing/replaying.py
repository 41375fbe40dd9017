"""Replays exported histories against code: does it still do what it has done?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestra.client.exports import ExportedExecution, read_export
from orchestra.context import Limits
from orchestra.errors import HistoryCorrupt, NewerLibraryNeeded
from orchestra.events import TerminalEvent, from_record
from orchestra.registry import OrchestrationDefinition, OrchestrationRegistry
from orchestra.replay import Drift, Execution, Identity
from orchestra.testing.checker import pending_commands

__all__ = ["ReplayDiffers", "Replayed", "replay_history"]


class ReplayDiffers(AssertionError):
    """Code does not do what a history says that it has done.

    ``instance_id``, ``execution_id`` and ``version`` say which history; ``event_id`` is the event
    at which code and history part, where there is one.
    """

    def __init__(self, message: str, execution: ExportedExecution, event_id: int | None) -> None:
        super().__init__(message)
        self.instance_id: str = execution.instance_id
        self.execution_id: int = execution.number
        self.version: str = execution.version
        self.event_id: int | None = event_id


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was replayed. ``drifts`` are values that the code would give otherwise now; those of
    history count.
    """

    executions: int
    events: int
    drifts: tuple[Drift, ...] = ()


def replay_history(
    registry: OrchestrationRegistry,
    exported: bytes | str | Path,
    *,
    limits: Limits | None = None,
    strict: bool = False,
) -> Replayed:
    """Replay an exported history against the code of a registry.

    Args:
        exported: what ``orchestra history --export`` or ``client.export_history`` has made, or a
            :class:`~pathlib.Path` to it.
        strict: whether code that gives other values differs too: other arguments of the same
            activity, say. In production the values of history count.

    Raises:
        ReplayDiffers: the code asks for something else than the history says, ends otherwise, or is
            not registered in the version that the history ran on.
        HistoryCorrupt: it is no export, it is damaged, or it holds no events.
        NewerLibraryNeeded: a newer library has written an event that this one does not know.
    """
    if isinstance(exported, Path):
        exported = exported.read_bytes()
    data = exported.encode() if isinstance(exported, str) else exported
    executions = read_export(data)
    if not executions:
        raise HistoryCorrupt(
            "the export holds no events, so there is nothing to replay; the retention of the "
            "instance may have dropped them"
        )
    drifts: list[Drift] = []
    for execution in executions:
        definition = registry.find(execution.name, execution.version)
        if definition is None:
            raise ReplayDiffers(
                f"{_named(execution)} ran on {execution.name} {execution.version}, which the "
                "registry does not have; register that version, or leave its history out",
                execution,
                None,
            )
        drifts += _replay(execution, definition, limits or Limits())
        if strict and drifts:
            raise ReplayDiffers(
                f"{_named(execution)} does not replay on {execution.name} {execution.version}: "
                f"{drifts[0]}",
                execution,
                drifts[0].event_id,
            )
    return Replayed(
        len(executions), sum(len(execution.events) for execution in executions), tuple(drifts)
    )


def _replay(
    exported: ExportedExecution, definition: OrchestrationDefinition, limits: Limits
) -> list[Drift]:
    identity = Identity(
        exported.instance_id,
        exported.incarnation,
        exported.number,
        exported.name,
        exported.version,
    )
    execution = Execution(definition, identity, limits)
    try:
        execution.replay(exported.events)
        ending = execution.ending
        pending = [event.id for event in execution.pending]
    except (HistoryCorrupt, NewerLibraryNeeded):
        raise  # that says nothing of the code
    except Exception as error:
        raise ReplayDiffers(
            f"{_named(exported)} does not replay on {exported.name} {exported.version}: "
            f"{type(error).__name__}: {error}",
            exported,
            getattr(error, "event_id", None),
        ) from error
    finally:
        execution.evict()
    events = [from_record(record) for record in exported.events]
    last = events[-1]
    recorded = last if isinstance(last, TerminalEvent) else None
    if ending != recorded:
        raise ReplayDiffers(
            f"{_named(exported)} ends with {recorded} in its history, and with {ending} on the "
            f"code of {exported.name} {exported.version}",
            exported,
            last.id,
        )
    waiting = [event.id for event in pending_commands(events)]
    if recorded is None and pending != waiting:
        raise ReplayDiffers(
            f"{_named(exported)} waits for the events {waiting} in its history, and for {pending} "
            f"on the code of {exported.name} {exported.version}",
            exported,
            last.id,
        )
    return list(execution.drifts)


def _named(execution: ExportedExecution) -> str:
    return f"lap {execution.number} of {execution.instance_id!r}"
