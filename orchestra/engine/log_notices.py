"""Log lines about single instances: holds, failures and failed attempts.

They are written once the write that says so stands.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from typing import Final

from orchestra.engine.attempts import FailedAttempt
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.steps.step import Step
from orchestra.errors import ErrorInfo
from orchestra.levels import Unknown
from orchestra.registry import OrchestrationRegistry
from orchestra.replay import Drift, SetAside
from orchestra.store.instances import CancelMark, Hold, Nudge, OperatorHold
from orchestra.store.kinds import HoldKind
from orchestra.store.outcomes import Refusal, RefusedSend
from orchestra.telemetry import escaped, log_instance
from orchestra.telemetry.quota import Quota

__all__ = ["LogNotices"]

_REMEMBERED: Final = 4_096
"""How many instances it remembers the log lines of."""

_TEXTS: Final = 16
"""How many texts it remembers of each."""

_SHOWN: Final = 1_000
"""Characters of an error that a log line shows. The instance's info shows all of it."""

_LOGGED_ATTEMPTS: Final = 20
"""How many failed attempts of one activity are logged one by one within a minute."""

_LOGGED_ASIDES: Final = 20
"""How many messages of one name that were set aside are logged one by one within a minute."""

_LOGGED_REFUSALS: Final = 20
"""How many refusals of one target are logged one by one within a minute."""

_WAITS_FOR_LEVEL: Final = (
    "cannot go on yet: its code asks for what a living node with an older library could not read. "
    "It tries again by itself; upgrade the library there"
)

_FRAME: Final = re.compile(r'^  File "(.+)", line (\d+), in (.+)$', re.MULTILINE)

_REFUSALS: Final = {
    Refusal.NOT_FOUND.value: "there is no such instance",
    Refusal.CLOSED.value: "it has ended",
    Refusal.FULL.value: "its inbox is full",
}

_REMEDIES: Final = {
    HoldKind.ERROR: (
        "Changed code tries once more, and client.release() lets the same code do so. To fail "
        "instead, raise orchestra.Failure, or name the exception in register(..., failures=(...))"
    ),
    HoldKind.LIMIT: (
        "It goes on once Runtime(limits=...) allows more, or changed code continues as new sooner"
    ),
    HoldKind.NONDETERMINISM: "It goes on once code is deployed that does what its history says",
    HoldKind.HISTORY: "Its stored history is damaged: restore it, or terminate the instance",
    HoldKind.STATE: (
        "It goes on once code is deployed that reads the value: the same version changed, or a "
        "higher one"
    ),
    HoldKind.MIGRATION: (
        "It goes on once code is deployed whose migrations differ. The state stays as it was "
        "written; a version policy that names the version before rolls it back"
    ),
    HoldKind.PAYLOAD: (
        "It goes on by itself once a node has the key, or the external storage answers again. What "
        "was changed or moved in the store must be put right first: see `orchestra keys`"
    ),
    HoldKind.STORE: (
        "Changed code tries once more, and client.release() lets the same code do so; or "
        "terminate it"
    ),
    HoldKind.INTERNAL: (
        "Please report it. Changed code tries once more, and client.release() lets the same code "
        "do so"
    ),
}


class LogNotices:
    """Logs what operators should know of single instances, and nothing twice until the instance has
    gone on.
    """

    def __init__(self, registry: OrchestrationRegistry) -> None:
        self._registry = registry
        self._logged: OrderedDict[str, set[str]] = OrderedDict()
        self._attempts = Quota(_LOGGED_ATTEMPTS)
        self._asides = Quota(_LOGGED_ASIDES)
        self._refusals = Quota(_LOGGED_REFUSALS)
        self._drifts: set[tuple[str, str, str]] = set()

    def stands(self, instance: OwnedInstance, step: Step) -> None:
        """Log what a step that stands has come to."""
        for failed in instance.attempts.take_unlogged():
            self._attempt_failed(instance, failed, step.now)
        for drift in step.drifts:
            self._drifted(instance, drift)
        if step.extras is not None:
            for aside in step.extras.set_aside:
                self._set_aside(instance, aside, step.now)
            for refused in step.extras.refused:
                self._refused(instance, refused, step.now)
        if step.waits_for_level and self.is_news(instance.instance_id, _WAITS_FOR_LEVEL):
            log_instance(logging.WARNING, instance.identity, _WAITS_FOR_LEVEL)
        if step.due is not None:
            self._is_due(instance, step.due)
        if step.hold is not None:
            self._held(instance, step.hold)
        elif step.deltas:
            if self._logged:  # it has gone on: the next hold is news
                self._logged.pop(instance.instance_id, None)
            if step.failure is not None:
                self._failed(instance, step.failure)

    def is_news(self, instance_id: str, text: str) -> bool:
        """Return whether this was not logged of the instance since it has last gone on, and
        remember it as logged.
        """
        texts = self._logged.setdefault(instance_id, set())
        self._logged.move_to_end(instance_id)
        if text in texts:
            return False
        if len(texts) >= _TEXTS:
            texts.clear()
        texts.add(text)
        if len(self._logged) > _REMEMBERED:
            self._logged.popitem(last=False)
        return True

    def _attempt_failed(self, instance: OwnedInstance, failed: FailedAttempt, now: int) -> None:
        """Log a failed attempt. Of an activity that fails all the time, log the first attempts of
        each minute, and how many more there were.
        """
        suppressed = self._attempts.take(failed.activity, now)
        if suppressed is None:
            return
        if failed.reason is not None:
            following = f"has failed for good ({failed.reason})"
        else:
            following = f"next attempt in {max(0, (failed.due or now) - now) / 1e6:.1f} s"
        more = f" ({suppressed:,} more failed attempts of it were not logged)" if suppressed else ""
        log_instance(
            logging.WARNING,
            instance.identity,
            "activity %r, attempt %d failed, %s: %s%s",
            failed.activity,
            failed.attempt,
            following,
            _shown(str(failed.error)),
            more,
            traceparent=instance.current.traceparent,
        )

    def _set_aside(self, instance: OwnedInstance, aside: SetAside, now: int) -> None:
        """Log a message that was set aside. Of one name, log the first of each minute, and how many
        more there were.
        """
        message = aside.message
        suppressed = self._asides.take(message.name, now)
        if suppressed is None:
            return
        more = f" ({suppressed:,} more of this name were not logged)" if suppressed else ""
        log_instance(
            logging.WARNING,
            instance.identity,
            "has set aside message %d, event %r, from %r: %s. It waits for the next one. "
            "client.list_messages() shows the message, client.drop_messages() removes it%s",
            message.sequence,
            message.name,
            message.sender,
            _shown(aside.reason),
            more,
            traceparent=instance.current.traceparent,
        )

    def _refused(self, instance: OwnedInstance, refused: RefusedSend, now: int) -> None:
        """Log a send that was refused, and whose refusal no code awaits."""
        suppressed = self._refusals.take(refused.target, now)
        if suppressed is None:
            return
        more = f" ({suppressed:,} more refusals of it were not logged)" if suppressed else ""
        what = "its cancel" if refused.name is None else f"its event {refused.name!r}"
        log_instance(
            logging.WARNING,
            instance.identity,
            "%s for instance %r was refused: %s. Await what ctx.raise_event or ctx.cancel returns "
            "to get the refusal as an error%s",
            what,
            refused.target,
            _REFUSALS.get(refused.reason, refused.reason),
            more,
            traceparent=instance.current.traceparent,
        )

    def _held(self, instance: OwnedInstance, hold: Hold) -> None:
        assert not isinstance(hold.kind, Unknown)  # this node holds it
        reason = f"{hold.kind.value}: {hold.detail}"
        if self.is_news(instance.instance_id, reason):
            trace = instance.current.traceparent
            log_instance(
                logging.WARNING,
                instance.identity,
                "is held: %s. %s",
                _shown(reason),
                _REMEDIES[hold.kind],
                traceparent=trace,
            )

    def _is_due(self, instance: OwnedInstance, act: Nudge | CancelMark | OperatorHold) -> None:
        """Log what a boundary does that was due: once for each execution."""
        match act:
            case Nudge():
                what = "is asked to reach its boundary"
            case CancelMark():
                what = "is cancelled"
            case OperatorHold():
                what = "is held until client.release()"
        log_instance(
            logging.WARNING,
            instance.identity,
            "%s: %s",
            what,
            act.reason,
            traceparent=instance.current.traceparent,
        )

    def _drifted(self, instance: OwnedInstance, drift: Drift) -> None:
        """Log once for each line of code that it gives another value than history has."""
        where = instance.kind.name, instance.current.version, drift.line
        if where in self._drifts or len(self._drifts) >= _REMEMBERED:
            return
        self._drifts.add(where)
        log_instance(
            logging.WARNING,
            instance.identity,
            (
                "its code gives another value than was recorded, which counts: %s. This line of "
                "code is not told of again"
            ),
            _shown(str(drift)),
            traceparent=instance.current.traceparent,
        )

    def _failed(self, instance: OwnedInstance, error: ErrorInfo) -> None:
        place = self._place(instance, error.traceback or "")
        trace = instance.current.traceparent
        log_instance(
            logging.ERROR,
            instance.identity,
            "has failed: %s%s",
            _shown(str(error)),
            place,
            traceparent=trace,
        )

    def _place(self, instance: OwnedInstance, traceback: str) -> str:
        """Return the line of the orchestration's own file that the error has passed, or else the
        line that raised it.
        """
        frames = [match.groups() for match in _FRAME.finditer(traceback)]
        if not frames:
            return ""
        definition = self._registry.find(instance.kind.name, instance.current.version)
        own = "" if definition is None else definition.place.partition(":")[0]
        file, line, function = next(
            (frame for frame in reversed(frames) if frame[0] == own), frames[-1]
        )
        return f" (at {escaped(file)}:{line} in {function})"


def _shown(text: str) -> str:
    return escaped(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
