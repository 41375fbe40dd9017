"""What the witness knows of background children: ends that belong to a life of an instance, and
which of its laps has received them.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.codec import unpack
from orchestra.events import ChildEnded, Event, error_from_wire
from orchestra.store.kinds import Status
from orchestra.store.messages import MessageRow
from tests.support.simulation.instances import WatchedInstance

__all__ = ["is_own", "take_ends"]


def is_own(instance: WatchedInstance, link: str) -> bool:
    """Return whether this life of an instance has started a child."""
    return link.startswith(f"{instance.instance_id}/{instance.incarnation}/")


def take_ends(
    instance: WatchedInstance, placed: Sequence[tuple[int, Event]], consumed: set[int]
) -> set[int]:
    """Account for the ends of background children that a write gives to code. Return the numbers
    of those that it removes.

    Each was waiting, and is told as what it was (I5). It is removed once; the lap that has received
    it may give it to more than one wait. Only a handle of another life is told that its end is
    lost. A lap after it gets the end of the child itself.
    """
    taken: set[int] = set()
    for number, event in placed:
        if not isinstance(event, ChildEnded):
            continue
        place = f"{instance.instance_id}, execution {number}, event {event.id}"
        if not event.sequence:
            if event.status == "lost":
                is_lost = not is_own(instance, event.link)
                assert is_lost, f"I1: {place}: the end of {event.link} is lost"
            else:
                _check_earlier(instance, event, place)
            continue
        received = instance.ends_in.setdefault(number, {})
        message = instance.ends.pop(event.sequence, None)
        if message is not None:
            assert event.sequence in consumed, f"I9: {place}: {message} is told, and stays"
            taken.add(event.sequence)
            received[event.sequence] = message
        message = received.get(event.sequence)
        assert message is not None, f"I5: {place}: {event} is told, and has not come"
        assert _tells(event, message), f"I5: {place}: {event} is not what has come, {message}"
    return taken


def _check_earlier(instance: WatchedInstance, event: ChildEnded, place: str) -> None:
    """An end that no message tells is one that an earlier lap has received, and is told alike."""
    link = event.link
    assert is_own(instance, link), f"I5: {place}: {event} is of another life"
    unread = [one for one in instance.ends.values() if one.message_id == link]
    assert not unread, f"I5: {place}: {event} is told beside {unread}"
    received = [
        one for ends in instance.ends_in.values() for one in ends.values() if one.message_id == link
    ]
    assert received, f"I1: {place}: {event} was never received"
    assert event.status == "gone" or _tells(event, received[-1]), (
        f"I5: {place}: {event} is not what has come, {received[-1]}"
    )


def _tells(event: ChildEnded, message: MessageRow) -> bool:
    if (event.link, event.child_id) != (message.message_id, message.name):
        return False
    if event.status != Status(message.source).name.lower():
        return False
    if event.status == "completed":
        return event.result == message.payload
    return event.cause == error_from_wire(unpack(message.payload.data)["error"])
