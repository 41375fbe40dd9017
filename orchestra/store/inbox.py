"""One inbox in a group: the messages that the group adds and consumes, and the room that is
left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestra.store.changes import Append
from orchestra.store.facts import Facts, InboxName
from orchestra.store.hot_row import HotRow
from orchestra.store.inbox_limits import Full, Waiting
from orchestra.store.kinds import MessageKind
from orchestra.store.messages import MessageRow

__all__ = ["Inbox"]


@dataclass(slots=True)
class Inbox:
    """One inbox while its group is decided, with counts kept up to date."""

    instance_id: str
    facts: Facts
    appended: dict[str, MessageRow] = field(default_factory=dict[str, MessageRow])
    consumed: set[int] = field(default_factory=set[int])

    def look_for_room(self, append: Append, row: HotRow) -> Full | None:
        """Return the bound that refuses one more message; ``None``: there is room, and the row
        counts it.

        If the row's upper bounds do not decide this, the facts hold counts (:class:`InboxLimits`).
        """
        limits, size, facts = append.limits, len(append.payload.data), self.facts
        whole = facts.whole.get(self.instance_id)
        if whole is not None and whole != row.most:
            row.most = whole
        most = row.most or Waiting()
        if not limits.have_room(most, Waiting(1, size)):
            named = facts.named.get(InboxName(self.instance_id, append.name), Waiting())
            full = limits.met_by(most, named, size)
            if full is not None:
                return full
        row.most = most.plus(size)
        return None

    def look_for_room_of_all(self, appends: Sequence[Append], row: HotRow) -> Full | None:
        """Return the bound that refuses some of these messages; ``None``: there is room for all of
        them.
        """
        facts = self.facts
        most = facts.whole.get(self.instance_id, row.most) or Waiting()
        named: dict[str, Waiting] = {}
        for append in appends:
            size, inbox_name = len(append.payload.data), InboxName(self.instance_id, append.name)
            of_name = named.get(append.name, facts.named.get(inbox_name, Waiting()))
            if not append.limits.have_room(most, Waiting(1, size)):
                full = append.limits.met_by(most, of_name, size)
                if full is not None:
                    return full
            most, named[append.name] = most.plus(size), of_name.plus(size)
        return None

    def add(self, message: MessageRow) -> None:
        """Count an added message."""
        if message.kind is MessageKind.EVENT:
            self.appended[message.message_id] = message
        self._count(message.name, Waiting(1, len(message.payload.data)))

    def consume(self, sequences: Sequence[int]) -> None:
        """Count messages that a write consumed."""
        self.consumed.update(sequences)
        for sequence in sequences:
            event = self.facts.consumed.get((self.instance_id, sequence))
            if (
                event is not None
            ):  # else it is the end of a child, or the group sends nothing to this inbox
                name, size = event
                self._count(name, Waiting(-1, -size))

    def restore(self, messages: Sequence[MessageRow], row: HotRow) -> None:
        """Count messages that an operator's write puts back. The row's bounds count them too."""
        for message in messages:
            if not message.is_sent:
                continue  # the end of a background child
            size = len(message.payload.data)
            self._count(message.name, Waiting(1, size))
            if row.most is not None:
                row.most = row.most.plus(size)

    def _count(self, name: str, change: Waiting) -> None:
        facts, inbox_name = self.facts, InboxName(self.instance_id, name)
        if self.instance_id in facts.whole:
            facts.whole[self.instance_id] = facts.whole[self.instance_id].changed_by(change)
        if inbox_name in facts.named:
            facts.named[inbox_name] = facts.named[inbox_name].changed_by(change)
