"""The clients of a simulated world: what they ask for, and what they were promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any, Final

from orchestra.codec import encode, plain
from orchestra.errors import LevelTooLow, OrchestraError, OutcomeUnknown, StoreBusy, StoreError
from orchestra.events import FORMAT
from orchestra.operations.retarget import retargeting
from orchestra.operations.terminate import termination
from orchestra.resolution import policy_of, start_version, stored_policy
from orchestra.store.changes import (
    Append,
    Cancel,
    ClientChange,
    Recover,
    Release,
    Resume,
    Start,
    Suspend,
    Write,
)
from orchestra.store.executions import ExecutionRow, Resolution
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.kinds import ResolvedBy, Status
from orchestra.store.outcomes import (
    Appended,
    AppendRefused,
    Granted,
    Outcome,
    Recovered,
    Started,
    StartExists,
)
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceRecord
from orchestra.store.routes import DEFAULT_QUEUE, Kind
from orchestra.versions import Exact, Latest, Policy, Range
from tests.support.simulation.instances import WatchedInstance
from tests.support.simulation.nodes import Link, SimulatedNode, Surroundings
from tests.support.simulation.operators import Operators
from tests.support.simulation.plan import Plan
from tests.support.simulation.programs import PROGRAMS, draw_state
from tests.support.simulation.witness import Witness

__all__ = ["Clients"]

_TRIES = 5
_POLICIES: Final = (Latest(), Exact("1.0.0"), Exact("1.1.0"), Range("~1.0"))


class Clients:
    """Send through nodes and over a connection of their own, ask again when no answer comes, and
    remember the answers.
    """

    def __init__(
        self, world: Surroundings, provider: Provider, plan: Plan, witness: Witness
    ) -> None:
        self._world = world
        self._random: Random = world.random
        self._directory = provider.directory
        self._admin = provider.admin
        self._library = provider.library
        self._link = Link(provider, world)
        self._plan = plan
        self._witness = witness
        self.operators: Operators = Operators(
            provider, world.random, witness, self._commit, world.new_id, self._is_asked_for
        )
        self._waiting: dict[str, ClientChange] = {}
        self._committing: list[ClientChange] = []
        self._sent: list[Append] = []
        self._asked: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        """By message id: how often it was sent, and how often its sender was told that nothing was
        stored, or nothing read.
        """
        self.doubtful: set[str] = set()
        """Message and instance ids of which a group is under way that may be applied at any later
        time.
        """

    # --- asking ---

    def act(self, nodes: Sequence[SimulatedNode]) -> None:
        """Do one thing that clients do."""
        random = self._random
        instances = [
            instance
            for instance in self._witness.instances.values()
            if instance.status is Status.OPEN
        ]
        action = random.random()
        if action < 0.4 or not instances:
            self._start(nodes)
            return
        instance = random.choice(instances)
        if action < 0.88:
            if self._sent and random.random() < 0.1:
                self._ask(
                    random.choice(self._sent), nodes
                )  # a sender that has not heard the answer asks again
            else:
                program = PROGRAMS[instance.name]
                if program.asks and random.random() < 0.7:
                    self.request(instance.instance_id, random.choice(program.asks), nodes)
                else:
                    self.send(instance.instance_id, random.choice(program.hears), nodes)
        elif action < 0.94:
            self.cancel(instance.instance_id, nodes)
        elif action < 0.97:
            self._terminate(instance.instance_id, nodes)
        else:
            self._delete()

    def _start(self, nodes: Sequence[SimulatedNode]) -> None:
        random = self._random
        parents = [name for name in self._plan.programs if PROGRAMS[name].has_children]
        name = random.choice(parents if parents and random.random() < 0.4 else self._plan.programs)
        catalogue = self._directory.catalogue()
        version = start_version(catalogue, name)
        how = ResolvedBy.POLICY
        if PROGRAMS[name].versioned and random.random() < 0.2:
            version, how = random.choice(["1.0.0", "1.1.0"]), ResolvedBy.EXPLICIT
        if version is None:
            return  # no node has it now
        resolution = Resolution(how, "a client", policy_of(catalogue, name)[1])
        state = encode(
            draw_state(
                name,
                random,
                self._plan.programs,
                self._plan.slots,
                living=[
                    one.instance_id
                    for one in self._witness.instances.values()
                    if one.status is Status.OPEN
                ],
            ),
            subject="state",
        )
        request = self._world.new_id("request")
        change = Start(
            f"{name}-{random.randrange(self._plan.slots)}",
            self._world.new_id("life"),  # short, for ids of children are made of its beginning
            request,
            Kind(DEFAULT_QUEUE, name, version, FORMAT, floating=how is ResolvedBy.POLICY),
            ExecutionRow(
                1,
                name,
                version,
                resolution,
                state,
                None,
                created_at=catalogue.now,
                request_id=request,
            ),
        )
        if random.random() < self._plan.again:
            self.operators.begin(change)
        else:
            self._ask(change, nodes)

    def send(self, instance_id: str, name: str, nodes: Sequence[SimulatedNode]) -> None:
        """Send an event."""
        limits = self._random.choice(
            (InboxLimits(), InboxLimits(), InboxLimits(3, 1_000), InboxLimits(20, 20))
        )
        payload = encode(self._world.new_id("value"), subject="message")
        change = Append(instance_id, self._world.new_id("message"), name, payload, limits=limits)
        self._sent.append(change)
        self._ask(change, nodes)

    def request(self, instance_id: str, name: str, nodes: Sequence[SimulatedNode]) -> None:
        """Ask an instance, or ask for an answer again. Some of what is asked does not fit the code's
        type.
        """
        mine = [one for one in self._sent if one.asks and one.instance_id == instance_id]
        if mine and self._random.random() < 0.3:
            self._ask(self._random.choice(mine), nodes)
            return
        fits = self._random.random() < 0.9
        payload = encode(self._world.new_id("value") if fits else 7, subject="request")
        limits = self._random.choice((InboxLimits(), InboxLimits(), InboxLimits(3, 1_000)))
        request_id = self._world.new_id("request")
        change = Append(instance_id, request_id, name, payload, limits=limits, asks=True)
        self._sent.append(change)
        self._ask(change, nodes)

    def cancel(self, instance_id: str, nodes: Sequence[SimulatedNode]) -> None:
        """Ask an instance to end."""
        self._ask(Cancel(instance_id, "enough"), nodes)

    def _terminate(self, instance_id: str, nodes: Sequence[SimulatedNode]) -> None:
        record = self._directory.get(instance_id)
        if record is None or record.status is not Status.OPEN:
            return
        row = record.row
        draw = 0.0 if row.owner is None else self._random.random()
        if draw > 0.85:
            # As a client does whose writes were refused all the time: whoever owns it is to end it.
            self._ask(
                Cancel(instance_id, "at once", terminate=True, incarnation=row.incarnation), nodes
            )
            return
        if row.owner is not None and draw < 0.5:
            # As a client does whose write was refused once: it raises the revision in the owner's
            # name.
            outcome = self._commit(Recover(instance_id, row.owner))
            if not isinstance(outcome, Recovered) or outcome.snapshot is None:
                return
            row = outcome.snapshot.row
        catalogue = self._directory.catalogue()
        writer = self._library.events.writer(row.kind.format, catalogue.levels.write)
        self._ask(termination(row, "at once", max(catalogue.now, record.updated_at), writer), nodes)

    def _delete(self) -> None:
        closed = [
            instance
            for instance in self._witness.instances.values()
            if instance.status is not Status.OPEN
        ]
        settled = [instance for instance in closed if not self._is_asked_for(instance.instance_id)]
        if settled:
            instance = self._random.choice(settled)
            try:
                deleted = self._admin.delete(
                    instance.instance_id, instance.incarnation, by="operator", reason="simulated"
                )
            except StoreBusy:  # somebody is in the middle of a transaction
                return
            assert deleted, f"{instance.instance_id} has ended, and was not deleted"
            self._witness.deleted(instance.instance_id)

    def _is_asked_for(self, instance_id: str) -> bool:
        """Return whether a start of this id may still come, asked for before: nobody deletes over
        his own request.
        """
        asked = *self._waiting.values(), *self._committing
        waiting = any(isinstance(one, Start) and one.instance_id == instance_id for one in asked)
        return waiting or instance_id in self.doubtful

    def operate(self, nodes: Sequence[SimulatedNode]) -> None:
        """Do one thing that operators do."""
        random = self._random
        versioned = [name for name in self._plan.programs if PROGRAMS[name].versioned]
        instances = [
            instance
            for instance in self._witness.instances.values()
            if instance.status is Status.OPEN
        ]
        draw = random.random()
        if draw < self._plan.control:
            self._control(instances)
            return
        pinnable = [instance.instance_id for instance in instances if instance.name in versioned]
        held = [
            instance.instance_id for instance in instances if instance.held and not instance.paused
        ]
        if held and random.random() < 0.4:
            self.release(random.choice(held), nodes)
        elif pinnable and random.random() < 0.6:
            version = random.choice(["1.0.0", "1.1.0"]) if random.random() < 0.6 else None
            self._set_pin(random.choice(pinnable), version, nodes)
        elif versioned:
            self.set_policy(random.choice(versioned), random.choice(_POLICIES))

    def _control(self, instances: Sequence[WatchedInstance]) -> None:
        """Hold, release, rewind or nudge an instance."""
        random = self._random
        paused = [instance for instance in instances if instance.paused]
        action = random.random()
        if paused and action < 0.35:
            self.operators.release(random.choice(paused).instance_id)
        elif instances and action < 0.5:
            self.operators.hold(random.choice(instances).instance_id)
        elif instances and action < 0.65:
            self.operators.nudge(random.choice(instances).instance_id)
        elif candidates := self.operators.candidates():
            have_read = [instance for instance in candidates if instance.delivered_in]
            some = have_read if have_read and random.random() < 0.7 else candidates
            self.operators.rewind(random.choice(some))

    def set_policy(self, name: str, policy: Policy) -> None:
        """Set the version policy of a name, if it may be written yet."""
        with suppress(LevelTooLow):  # no node has lived yet
            value = stored_policy(self._directory.catalogue(), policy)
            self._admin.set_policy(name, value, by="operator", reason="simulated")
            self._witness.versions.policy_set(name, policy)

    def _set_pin(
        self, instance_id: str, version: str | None, nodes: Sequence[SimulatedNode]
    ) -> None:
        """Tie an instance to a version or untie it, as a client does: what has not begun follows at
        once.
        """
        try:
            pinned = self._admin.set_pin(instance_id, version, by="operator", reason="simulated")
        except StoreBusy:  # somebody is in the middle of a transaction
            return
        assert pinned
        self._witness.ownership_changed()
        record = self._directory.get(instance_id)
        assert record is not None
        change = retargeting(record, self._directory.catalogue(), "operator")
        if change is not None:
            self._ask(change, nodes)

    def unpin(self) -> None:
        """Take all pins away."""
        for instance in [
            instance
            for instance in self._witness.instances.values()
            if instance.status is Status.OPEN
        ]:
            record = self._directory.get(instance.instance_id)
            if record is not None and record.row.pin is not None:
                self._set_pin(instance.instance_id, None, ())

    def release(self, instance_id: str, nodes: Sequence[SimulatedNode]) -> None:
        """End a hold, as an operator does who has removed its cause."""
        record = self._directory.get(instance_id)
        if record is not None and record.held:
            self._ask(Release(instance_id, record.row.incarnation, record.row.revision), nodes)

    def _ask(self, change: ClientChange, nodes: Sequence[SimulatedNode]) -> None:
        if isinstance(change, Append):
            self._asked[change.message_id] += 1
        if nodes and self._random.random() < 0.5:
            self._waiting[self._random.choice(nodes).submit(change)] = change
        else:
            self._answered(change, self._commit(change))

    def commit(self, change: ClientChange) -> Outcome:
        """Commit a change over the clients' connection, once.

        Raises:
            StoreError: it was not committed, or nobody knows.
        """
        return self._link.commit([change]).outcomes[0]

    def _commit(self, change: ClientChange) -> Outcome | OrchestraError:
        self._committing.append(change)
        try:
            return self._insist(change)
        finally:
            self._committing.remove(change)

    def _insist(self, change: ClientChange) -> Outcome | OrchestraError:
        unknown: OutcomeUnknown | None = None
        for _ in range(_TRIES):
            try:
                return self._link.commit([change]).outcomes[0]
            except OutcomeUnknown as error:
                unknown = error
                if not isinstance(change, (Start, Append, Cancel, Suspend, Resume)):
                    return error
            except StoreError as error:
                return unknown or error
        return unknown or OutcomeUnknown("no answer ever came")

    # --- answers ---

    def hear(self, node: SimulatedNode) -> None:
        """Take the answers that a node has for its clients."""
        replies, node.replies = node.replies, []
        for reply in replies:
            change = self._waiting.pop(reply.token, None)
            assert change is not None, "a client was answered twice"
            self._answered(change, reply.outcome)

    def abandoned(self) -> None:
        """Whatever was asked for is answered no more: its nodes are gone."""
        self._waiting.clear()

    def _answered(self, change: ClientChange, outcome: Outcome | OrchestraError) -> None:
        witness = self._witness
        if isinstance(outcome, OutcomeUnknown):
            return
        if isinstance(outcome, OrchestraError):
            assert isinstance(outcome, StoreError), outcome
        match change, outcome:
            case Start(), (Started() | StartExists(same=True)):
                assert witness.instance(change.instance_id, change.incarnation) is not None, (
                    f"I1: {change} was promised"
                )
            case Append(asks=True), Appended():
                pass  # the witness has checked the outcome itself
            case Append(), Appended():
                instances = [*witness.past.values(), *witness.instances.values()]
                stored = [
                    instance.known.get(change.message_id)
                    for instance in instances
                    if instance.instance_id == change.instance_id
                ]
                assert any(one is not None and one[0] == outcome.sequence for one in stored) or any(
                    instance.status is not Status.OPEN
                    for instance in instances
                    if instance.instance_id == change.instance_id
                ), f"I1: {change} was promised as {outcome.sequence}"
            case Append(), (AppendRefused() | StoreError()):
                self._refused[change.message_id] += 1
            case Cancel(), Appended():
                instances = [
                    instance
                    for instance in (*witness.past.values(), *witness.instances.values())
                    if instance.was_cancelled
                ]
                assert any(instance.instance_id == change.instance_id for instance in instances), (
                    f"I1: {change} was promised"
                )
            case Write(state=state), Granted() if state.status is Status.TERMINATED:
                instance = witness.instance(change.instance_id, change.incarnation)
                assert instance is not None, (
                    f"I1: {change.instance_id} was terminated, and is not known"
                )
                assert instance.status is Status.TERMINATED, (
                    f"I1: {change.instance_id} was terminated, and is {instance}"
                )
            case _:
                pass

    # --- judging ---

    def check(self) -> None:
        """Hold what clients were told against what became of it."""
        witness = self._witness
        delivered = {
            message.message_id: instance.instance_id
            for instance in (*witness.past.values(), *witness.instances.values())
            for messages in instance.delivered_in.values()
            for message in messages
        }
        for message_id, refused in self._refused.items():
            if refused == self._asked[message_id] and message_id not in self.doubtful:
                assert message_id not in delivered, (
                    f"I1: {message_id} to {delivered[message_id]} was refused, and delivered"
                )

    def check_end(self, record: InstanceRecord) -> None:
        """Check how an instance ended."""
        instance = self._witness.instances[record.row.instance_id]
        program = PROGRAMS[instance.name]
        place = f"{instance.instance_id} ({instance.incarnation})"
        assert record.status in program.ends, (
            f"{place} ended {record.status.name}: {record.execution.error}"
        )
        assert instance.cancelled or record.status is not Status.CANCELLED, (
            f"{place} was cancelled by nobody"
        )
        if record.status is Status.COMPLETED:
            assert record.execution.output is not None
            output: Any = plain(record.execution.output)
            delivered = [plain(message.payload) for message in instance.delivered]
            assert program.right(output, delivered), (
                f"{place} returned {output}, and was sent {delivered}"
            )
