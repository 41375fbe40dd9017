"""What the witness knows of parents and children: who was started by whom, and what a granted write
must do to others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from orchestra.codec import Payload, unpack
from orchestra.events import (
    EVENTS,
    ChildCompleted,
    ChildFailedEvent,
    ChildStarted,
    CommandCancelled,
    DetachedStarted,
    Event,
    EventForms,
    OnParentClose,
    SendDelivered,
    SendRefused,
    error_from_wire,
    from_record,
)
from orchestra.store.changes import ChildStart, Start, Write
from orchestra.store.instances import PARENT_CLOSED, CancelMark, ParentLink
from orchestra.store.kinds import MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import Appended, Granted
from tests.support.simulation.instances import WatchedInstance
from tests.support.simulation.sends import WatchedSends, tells_receipt

__all__ = ["WatchedChildren", "take_reports"]


def take_reports(
    instance: WatchedInstance, write: Write, events: list[Event], consumed: set[int]
) -> None:
    """Account for the ends of children that a write takes: each was waiting, and is told as what it
    was (I5).
    """
    given_up = {event.source for event in events if isinstance(event, CommandCancelled)}
    for event in events:
        if not isinstance(event, ChildCompleted | ChildFailedEvent | SendDelivered | SendRefused):
            continue
        place = f"{instance.instance_id}, execution {instance.execution}, event {event.id}"
        waiting = [report for report in instance.reports.values() if report.source == event.source]
        assert len(waiting) == 1, (
            f"I5: {place}: the end of a child is told, and {len(waiting)} have come"
        )
        report = instance.reports.pop(waiting[0].sequence)
        assert report.sequence in consumed, (
            f"I9: {place}: the end of a child is told, and stays in the inbox"
        )
        consumed.remove(report.sequence)
        assert _tells(event, report), (
            f"I5: {place}: {event} is not what the child ended with, {report}"
        )
    for sequence in consumed:
        report = instance.reports.pop(sequence, None)
        assert report is not None, (
            f"I8: {sequence} of {instance.instance_id} was removed, and neither read nor the end of a "
            "child"
        )
        is_late = report.source in given_up or report.source not in instance.commands
        assert is_late, (
            f"I5: the end of a child that {instance.instance_id} waits for was dropped: {report}"
        )
    if any(delta.closed is not None for delta in write.executions):
        instance.reports.clear()
    elif events and write.hold is None:
        seen = [number for number in instance.reports if number <= write.state.seen_seq]
        assert not seen, (
            f"I9: {instance.instance_id} has seen {seen}, the ends of children, and left them in its "
            "inbox"
        )


def _tells(
    event: ChildCompleted | ChildFailedEvent | SendDelivered | SendRefused, report: MessageRow
) -> bool:
    if isinstance(event, SendDelivered | SendRefused):
        return tells_receipt(event, report)
    if isinstance(event, ChildCompleted):
        return (report.kind, report.payload) == (MessageKind.CHILD_COMPLETED, event.result)
    status, cause = (
        report.kind.name.removeprefix("CHILD_").lower(),
        error_from_wire(unpack(report.payload.data)["error"]),
    )
    return (status, cause) == (event.status, event.cause)


class WatchedChildren:
    """Follows what granted writes do to other instances, in an account of its own (rules 7 and
    20).
    """

    def __init__(
        self,
        instances: Mapping[str, WatchedInstance],
        begin: Callable[[Start], WatchedInstance],
        begin_again: Callable[[Start], WatchedInstance | None],
        counts: Counter[str],
        forms: EventForms = EVENTS,
        reads_all_ends: Callable[[str | None], bool] = lambda _: True,
    ) -> None:
        self._reads_all_ends = reads_all_ends
        self._forms = forms
        self._instances = instances
        self._begin = begin
        self._begin_again = begin_again
        self._counts = counts
        self._commands: set[ParentLink] = set()
        self._former: dict[tuple[str, str], tuple[ParentLink | None, OnParentClose]] = {}
        """The parents of lives that have ended, and that were begun again since."""
        self._now = 0
        self._arrivals: list[tuple[str, Appended]] = []
        self._sends = WatchedSends(instances, counts, self._tell, self._mark, forms)

    def follow(self, write: Write, granted: Granted, now: int) -> list[str]:
        """Do what the write must have done to others, and compare. Return the ids of those
        others.
        """
        self._now, self._arrivals = now, []
        instance = self._instances[write.instance_id]
        self._check_starts(instance, write)
        refused_ids = set[str]()
        if not self._reads_all_ends(write.owner):
            refused_ids = {
                appended.message.message_id
                for _, appended in granted.arrivals
                if appended.message is not None
                and appended.message.kind is MessageKind.CHILD_FAILED
            }
        taken = [
            child.child_id for child in write.extras.starts if not self._start(child, refused_ids)
        ]
        for cancel in write.extras.cancels:
            child = self._instances.get(cancel.child_id)
            if child is not None and child.parent == cancel.parent:
                self._counts["children given up"] += 1
                self._mark(child, CancelMark(now, cancel.reason, cancel.parent.instance_id))
        refused = self._sends.follow(write, now, self._arrivals)
        for delta in write.executions:
            if delta.closed is not None and not write.extras.leaves_children:
                self._close(instance, delta.number)
        life = write.instance_id, write.incarnation
        parent, on_close = self._former.pop(life, (instance.parent, instance.on_parent_close))
        status = write.state.status
        if status is not Status.OPEN and parent is not None and write.executions:
            closed = write.executions[-1].closed
            assert closed is not None, (
                f"I4: {instance.instance_id} has ended, and its execution has not"
            )
            output, error = closed.output, closed.error
            end = (
                (output or Payload(b"null"))
                if status is Status.COMPLETED
                else Payload(error or b"")
            )
            if on_close is OnParentClose.KEEP:
                self._tell_life(parent, instance.instance_id, status, end)
            else:
                kind = MessageKind(status.value)
                self._tell(parent, instance.instance_id, kind, end)
        elsewhere = tuple(one for one in granted.arrivals if one[1].activity is None)
        told = elsewhere, granted.taken, granted.refused
        assert told == (tuple(self._arrivals), tuple(taken), refused), (
            f"rule 20: {instance.instance_id} did {told} to others, and should have done "
            f"{self._arrivals}, {taken}, {refused}"
        )
        return [child.child_id for child in write.extras.starts] + [
            instance_id for instance_id, _ in self._arrivals
        ]

    def _check_starts(self, instance: WatchedInstance, write: Write) -> None:
        """What is started is what the code asked for, each command once; all of it, but what was
        given up at once.
        """
        asked: dict[ParentLink, ChildStarted | DetachedStarted] = {}
        given_up: set[ParentLink] = set()
        for delta in write.executions:
            for record in delta.events:
                event = from_record(record, self._forms)
                if isinstance(event, (ChildStarted, DetachedStarted)):
                    asked[
                        ParentLink(write.instance_id, write.incarnation, delta.number, event.id)
                    ] = event
                elif isinstance(event, CommandCancelled):
                    given_up.add(
                        ParentLink(write.instance_id, write.incarnation, delta.number, event.source)
                    )
        for child in write.extras.starts:
            assert child.parent not in self._commands, (
                f"scenario 17: {child.parent} starts {child.child_id} a second time"
            )
            self._commands.add(child.parent)
            event = asked.pop(child.parent, None)
            assert event is not None, (
                f"I5: {child.parent} starts {child.child_id}, and did not ask for it"
            )
            assert event.child_id == child.child_id, f"I5: {child} is started for {event}"
            if child.start is not None:
                _check_start(event, child, child.start)
        recalled = {
            ParentLink(
                write.instance_id, write.incarnation, instance.execution, source
            ): command.child_id
            for source, command in instance.commands.items()
            if isinstance(command, ChildStarted)
        }
        expected = {link: child_id for link, child_id in recalled.items() if link in given_up}
        cancels = {cancel.parent: cancel.child_id for cancel in write.extras.cancels}
        if write.extras.leaves_children:
            expected = {link: child_id for link, child_id in cancels.items() if self._has(link)}
        assert cancels == expected, (
            f"rule 20: {instance.instance_id} cancels {cancels}, and has given up {expected}"
        )
        lost = asked.keys() - given_up
        assert not lost, f"I1: {lost} were asked for and not started"

    def _has(self, link: ParentLink) -> bool:
        """Return whether an open instance has this parent."""
        return any(
            instance.parent == link and instance.status is Status.OPEN
            for instance in self._instances.values()
        )

    def _start(self, child: ChildStart, refused: Collection[str]) -> bool:
        """Start a child.

        Args:
            refused: commands that an older library has refused. It begins none again that was
                cancelled by a newer one, as it does not know how that has ended (rule 37).
        """
        instance: WatchedInstance | None = None
        former = self._instances.get(child.child_id)
        is_unknown = former is not None and former.status is Status.CANCELLED
        if child.start is not None and not (is_unknown and str(child.parent) in refused):
            instance = (self._begin if former is None else self._begin_again)(child.start)
            if former is not None and instance is not None:
                life = former.instance_id, former.incarnation
                self._former[life] = former.parent, former.on_parent_close
        if child.start is not None and instance is not None:
            instance.parent, instance.on_parent_close = (
                child.start.parent,
                child.start.on_parent_close,
            )
            parent = self._instances[child.parent.instance_id]
            instance.root = None if instance.parent is None else parent.root or parent.instance_id
            self._counts["detached" if instance.parent is None else "children"] += 1
            return True
        if child.refusal is None:
            self._counts["detached, the id was taken"] += 1
            return False
        self._counts["children refused"] += 1
        refusal = Payload(child.refusal)
        if child.keeps:
            self._tell_life(child.parent, child.child_id, Status.FAILED, refusal)
        else:
            self._tell(child.parent, child.child_id, MessageKind.CHILD_FAILED, refusal)
        return True

    def _close(self, instance: WatchedInstance, execution: int) -> None:
        closed = instance.instance_id, instance.incarnation, execution
        bound: list[tuple[int, WatchedInstance]] = []
        for child in self._instances.values():
            link = child.parent
            if link is not None and (link.instance_id, link.incarnation, link.execution) == closed:
                bound.append((link.event_id, child))
        for _, child in sorted(bound, key=lambda pair: pair[0]):
            if child.on_parent_close in (OnParentClose.CANCEL, OnParentClose.TERMINATE):
                self._counts[f"children to {child.on_parent_close.name.lower()}"] += (
                    child.status is Status.OPEN
                )
                terminate = child.on_parent_close is OnParentClose.TERMINATE
                self._mark(
                    child, CancelMark(self._now, PARENT_CLOSED, instance.instance_id, terminate)
                )

    def _mark(self, child: WatchedInstance, mark: CancelMark) -> None:
        """Mark a child, unless a mark stands that is as strong (rule 18)."""
        if (
            child.status is not Status.OPEN
            or child.doomed
            or (child.cancelled and not mark.terminate)
        ):
            return
        child.cancelled, child.doomed = True, mark.terminate
        child.was_cancelled = True
        child.inbox_seq += 1
        child.doomed_by = child.inbox_seq if mark.terminate else 0
        if mark.terminate:
            child.held = child.paused = False
        self._arrivals.append(
            (child.instance_id, Appended(child.inbox_seq, child.owner, fresh=True, cancel=mark))
        )

    def _tell(self, link: ParentLink, child_id: str, kind: MessageKind, payload: Payload) -> bool:
        """Tell the execution that asked for a child of its end, or of what it has sent, if it is
        the open one; else it is dropped. Return whether it is told.
        """
        parent = self._instances.get(link.instance_id)
        current = None if parent is None else (parent.incarnation, parent.number, parent.status)
        if parent is None or current != (link.incarnation, link.execution, Status.OPEN):
            self._counts["ends that nobody waits for"] += 1
            return False
        self._counts["ends told"] += 1
        assert all(report.source != link.event_id for report in parent.reports.values()), (
            f"I5: {link} is told twice"
        )
        parent.inbox_seq += 1
        report = MessageRow(
            parent.inbox_seq,
            str(link),
            child_id,
            payload,
            self._now,
            kind,
            link.event_id,
            sender=child_id,
        )
        parent.reports[report.sequence] = report
        self._arrivals.append(
            (link.instance_id, Appended(report.sequence, parent.owner, fresh=True, message=report))
        )
        return True

    def _tell_life(self, link: ParentLink, child_id: str, status: Status, payload: Payload) -> None:
        """Tell a life of an instance of the end of its background child, in whichever execution it
        is.
        """
        parent = self._instances.get(link.instance_id)
        current = None if parent is None else (parent.incarnation, parent.status)
        if parent is None or current != (link.incarnation, Status.OPEN):
            self._counts["background ends that nobody waits for"] += 1
            return
        self._counts["background ends told"] += 1
        if parent.number != link.execution:
            self._counts["background ends told to a later lap"] += 1
        received = [one for ends in parent.ends_in.values() for one in ends.values()]
        assert all(one.message_id != str(link) for one in (*parent.ends.values(), *received)), (
            f"I5: {link} is told twice"
        )
        parent.inbox_seq += 1
        end = MessageRow(
            parent.inbox_seq,
            str(link),
            child_id,
            payload,
            self._now,
            MessageKind.BACKGROUND_CHILD_ENDED,
            status.value,
            sender=child_id,
        )
        parent.ends[end.sequence] = end
        self._arrivals.append(
            (link.instance_id, Appended(end.sequence, parent.owner, fresh=True, message=end))
        )


def _check_start(event: ChildStarted | DetachedStarted, child: ChildStart, start: Start) -> None:
    place = f"{child.parent} starts {child.child_id}"
    attached = isinstance(event, ChildStarted)
    assert start.execution.state == event.input, f"I5: {place} on another state"
    assert (start.kind.name, start.execution.name) == (event.name, event.name), (
        f"I5: {place} as {start.kind}"
    )
    assert event.version in (None, start.execution.version), (
        f"scenario 6: {place} in {start.execution.version}"
    )
    assert start.parent == (child.parent if attached else None), (
        f"rule 20: {place}, whose parent is {start.parent}"
    )
    close = event.on_parent_close if isinstance(event, ChildStarted) else OnParentClose.ABANDON
    assert start.on_parent_close is close, f"rule 20: {place}, to {start.on_parent_close.name} it"
    assert child.keeps == (close is OnParentClose.KEEP), f"rule 20: {place}, and keeps it wrongly"
    assert attached == (child.refusal is not None), (
        f"rule 20: {place}, and nobody is told when that cannot be"
    )
