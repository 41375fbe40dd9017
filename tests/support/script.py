"""Performs operations by a script: the answers stand in the test, and no store is opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from orchestra.codec import Payload
from orchestra.store.catalogue import Capability, Catalogue, NodeRecord, NodeRow, PolicyRow
from orchestra.store.executions import ExecutionRow, Resolution
from orchestra.store.instances import Hold, InstanceRow
from orchestra.store.kinds import THIS_LIBRARY, HoldKind, ResolvedBy, Status
from orchestra.store.queries import InstanceRecord
from orchestra.store.routes import DEFAULT_QUEUE, Kind

NOW = 1_000
HOLD = Hold(HoldKind.STATE, "the state does not fit", since=5, by="n1")


def performed(operation, answers: Iterable = ()):
    """Perform an operation; an answer that is an error is thrown. Return the steps that it took,
    and its result or its error.

    Each answer must be used: an operation that asks for less than its script says fails the test.
    """
    steps, left, answer = [], iter(answers), None
    try:
        while True:
            steps.append(
                operation.throw(answer) if isinstance(answer, Exception) else operation.send(answer)
            )
            try:
                answer = next(left)
            except StopIteration:
                raise AssertionError(f"nothing answers {steps[-1]}") from None
    except StopIteration as end:
        result = end.value
    except Exception as error:
        if isinstance(error, AssertionError):
            raise
        result = error
    assert not list(left), f"it ended after {steps}"
    return steps, result


def a_record(
    instance_id="i",
    *,
    version="1.0.0",
    status=Status.OPEN,
    held=False,
    how=ResolvedBy.POLICY,
    policy_revision=1,
    state_version=None,
    closed_at=None,
    floating=True,
    updated_at=7,
    **row,
):
    """Return an instance as stored. By default it is open, has not begun, and is owned by no
    node.
    """
    standing = InstanceRow(
        instance_id=instance_id,
        incarnation="a",
        kind=Kind(DEFAULT_QUEUE, "job", version, 1, floating=floating),
        revision=3,
        owner=None,
        wake_at=0,
        inbox_seq=0,
        seen_seq=0,
        execution=1 if state_version is None else 2,
        opened=False,
        takeovers=0,
        history_events=0,
        history_bytes=0,
        hold=HOLD if held else None,
    )
    resolution = Resolution(how, "n1", policy_revision)
    number = 1 if state_version is None else 2
    execution = ExecutionRow(
        number,
        "job",
        version,
        resolution,
        Payload(b"1"),
        state_version,
        created_at=7,
        closed_at=closed_at,
    )
    return InstanceRecord(
        row=replace(standing, **row),
        held=held,
        status=status,
        execution=execution,
        summary=b"",
        custom_status=None,
        created_at=7,
        updated_at=updated_at,
        created_by="client",
        unread_messages=0,
        unread_at_end={},
        labels={},
    )


def a_catalogue(*versions, policy=None, revision=2, kinds=(), queues=(DEFAULT_QUEUE,), now=NOW):
    """Return a catalogue with one living node that has these versions of ``job``, or with none if
    no version is given.
    """
    capabilities = tuple(Capability("job", version, f"f{version}") for version in versions)
    record = NodeRecord(
        "n1",
        "here",
        "boot",
        1,
        "0.1.0",
        (1,),
        1_000_000,
        capabilities,
        (),
        queues,
        8,
        reads=THIS_LIBRARY.level,
        writes=THIS_LIBRARY.writes,
    )
    nodes = (NodeRow(record, 0, now, 1, dead=False),) if versions else ()
    policies = (
        {} if policy is None else {"job": PolicyRow("job", revision, str(policy), "me", "", 5)}
    )
    return Catalogue(now, nodes, policies, tuple(kinds))
