"""What the forms of an instance's page do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from orchestra.client import Client
from orchestra.client.info import InstanceInfo
from orchestra.errors import InvalidArgument
from orchestra.web.dashboard.fields import Field, value_of

__all__ = ["MEANINGS", "Done", "Inputs", "acts_on", "moment_of", "perform", "plain_acts_on"]

_PATIENCE: Final = timedelta(seconds=5)
"""How long a page waits for the answer to a request."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a form has done. ``said`` names it for the page that follows. ``answer`` is what a
    request was answered, in a tuple of one.
    """

    said: str
    instance_id: str
    is_gone: bool = False
    answer: tuple[Any] | None = None


_Form = Mapping[str, str]
_Do = Callable[[Client, str, str, str, _Form], Awaitable[Done]]
Inputs = Mapping[tuple[str, str], Sequence[Field] | None]
"""The inputs of events and requests, by kind and name; ``None``: a payload is filled in as JSON."""


MEANINGS: Final[dict[str, str]] = {
    "hold": "No turn runs, no timer fires and no activity begins until it is released.",
    "release": "What holds it is over, or the deployed code tries it once more.",
    "nudge": "Its code hears that it should reach its boundary soon.",
    "unpin": "The policy of its name chooses its next version again.",
    "cancel": "Its code is told to stop, and may clean up.",
    "terminate": "It ends at once; its code does not run again.",
    "delete": "All of it goes, and nothing brings it back.",
}
"""What the acts do whose forms ask for a reason alone."""


def plain_acts_on(info: InstanceInfo) -> tuple[str, ...]:
    """Return the acts on an instance as it stands whose forms ask for a reason alone."""
    if info.status.is_final:
        return ("delete",)
    first = ("release", "hold") if info.hold is not None else ("hold", "release")
    return (*first, "nudge", "unpin", "cancel", "terminate")


def acts_on(info: InstanceInfo) -> tuple[str, ...]:
    """Return the other acts on an instance as it stands."""
    ever = ("pin", "labels", "rewind", "rerun")
    return ever[1:] if info.status.is_final else ("event", "request", *ever)


async def perform(client: Client, instance_id: str, form: _Form, by: str, inputs: Inputs) -> Done:
    """Do what a form says.

    Args:
        inputs: the inputs of the events and requests that its code waits for.

    Raises:
        InvalidArgument: there is no such act, or a field cannot be read.
        OrchestraError: the client refuses it.
    """
    chosen = form.get("act", "")
    if chosen not in _DO and chosen not in _SENT:
        known = ", ".join((*_DO, *_SENT))
        raise InvalidArgument(f"{chosen!r} is nothing to do; choose one of {known}")
    if chosen in _SENT:
        payload = value_of(form, inputs.get((chosen, form.get("name", ""))))
        return await _SENT[chosen](client, instance_id, form, payload)
    return await _DO[chosen](client, instance_id, form.get("reason", ""), by, form)


def moment_of(words: str, what: str) -> datetime | None:
    """Return the instant of an input in UTC; ``None``: it is empty.

    Raises:
        InvalidArgument: it is none.
    """
    if not words.strip():
        return None
    try:
        moment = datetime.fromisoformat(words.strip())
    except ValueError as error:
        raise InvalidArgument(f"{what}={words!r} is no time; write 2026-03-01T12:00") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


async def _hold(client: Client, one: str, reason: str, by: str, _: _Form) -> Done:
    await client.hold(one, reason=reason, by=by)
    return Done("hold", one)


async def _release(client: Client, one: str, reason: str, by: str, _: _Form) -> Done:
    await client.release(one, reason=reason, by=by)
    return Done("release", one)


async def _nudge(client: Client, one: str, reason: str, by: str, _: _Form) -> Done:
    asked = await client.nudge(one, reason=reason, by=by)
    return Done("nudge" if asked else "nudged", one)


async def _cancel(client: Client, one: str, reason: str, by: str, _: _Form) -> Done:
    await client.cancel(one, reason, by=by)
    return Done("cancel", one)


async def _terminate(client: Client, one: str, reason: str, by: str, _: _Form) -> Done:
    await client.terminate(one, reason, by=by)
    return Done("terminate", one)


async def _delete(client: Client, one: str, reason: str, by: str, _: _Form) -> Done:
    await client.delete(one, reason=reason, by=by)
    return Done("delete", one, is_gone=True)


async def _pin(client: Client, one: str, reason: str, by: str, form: _Form) -> Done:
    until = moment_of(form.get("until", ""), "until")
    await client.pin(one, form.get("version", ""), until, reason=reason, by=by)
    return Done("pin", one)


async def _unpin(client: Client, one: str, reason: str, by: str, _: _Form) -> Done:
    await client.unpin(one, reason=reason, by=by)
    return Done("unpin", one)


async def _rewind(client: Client, one: str, reason: str, by: str, form: _Form) -> Done:
    number = form.get("execution", "")
    if not number.isdecimal():
        raise InvalidArgument("say with its number which lap begins again")
    await client.rewind(
        one,
        int(number),
        form.get("version") or None,
        pin=form.get("pin", "yes") == "yes",
        reason=reason,
        by=by,
        request_id=form.get("request_id") or None,
    )
    return Done("rewind", one)


async def _rerun(client: Client, one: str, reason: str, by: str, form: _Form) -> Done:
    handle = await client.rerun(
        one,
        form.get("version") or None,
        form.get("instance_id") or None,
        reason=reason,
        by=by,
    )
    return Done("rerun", handle.instance_id)


async def _labels(client: Client, one: str, reason: str, by: str, form: _Form) -> Done:
    key, value = form.get("key", ""), form.get("value", "")
    await client.set_labels(one, {key: value or None}, reason=reason, by=by)
    return Done("labels", one)


async def _event(client: Client, one: str, form: _Form, payload: Any) -> Done:
    await client.raise_event(
        one, form.get("name", ""), payload, message_id=form.get("request_id") or None
    )
    return Done("event", one)


async def _request(client: Client, one: str, form: _Form, payload: Any) -> Done:
    answer = await client.request(
        one,
        form.get("name", ""),
        payload,
        timeout=_PATIENCE,
        request_id=form.get("request_id") or None,
    )
    return Done("request", one, answer=(answer,))


_DO: Final[dict[str, _Do]] = {
    "hold": _hold,
    "release": _release,
    "nudge": _nudge,
    "cancel": _cancel,
    "terminate": _terminate,
    "pin": _pin,
    "unpin": _unpin,
    "rewind": _rewind,
    "rerun": _rerun,
    "labels": _labels,
    "delete": _delete,
}
_SENT: Final = {"event": _event, "request": _request}
