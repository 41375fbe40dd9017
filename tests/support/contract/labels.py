"""Labels that code and operators change."""

from __future__ import annotations

from dataclasses import replace

from orchestra.store.executions import Closing, ExecutionDelta
from orchestra.store.kinds import ExecutionEnd
from orchestra.store.labels import Labelled
from orchestra.store.outcomes import Granted, Refused, Started
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceQuery
from tests.support.contract.base import ContractBase
from tests.support.contract.shorthand import (
    a_start,
    a_state,
    a_write,
    an_append,
    an_end,
    an_execution,
    claim,
    expect,
    one,
    read,
)

TEXT = "naïve ☃ 'quoted\" \\ %_ \U0001f600 </script> ; DROP TABLE label; --"


def begin(provider: Provider, **labels: str):
    expect(one(provider, replace(a_start("i"), labels=labels)), Started)
    (snapshot,) = claim(provider)
    return snapshot.row


class LabelTests(ContractBase):
    """In the write of a step, and by an operator beside it."""

    def test_a_write_sets_labels_and_removes_others_and_leaves_the_rest(
        self, provider: Provider
    ) -> None:
        row = begin(provider, plan="free", trial="yes", team="blue")
        changes = (("plan", "pro"), ("trial", None), (TEXT, TEXT), ("unknown", None), ("void", ""))
        expect(one(provider, a_write(row, labels=changes)), Granted)
        expected = {"plan": "pro", "team": "blue", TEXT: TEXT, "void": ""}
        assert read(provider).labels == expected
        assert one(provider, a_write(row, labels=(("plan", "late"),))) == Refused()
        assert read(provider).labels == expected, "a refused write sets nothing (I6)"
        found = provider.directory.list(InstanceQuery(labels={TEXT: TEXT, "plan": "pro"}))
        assert [record.row.instance_id for record in found] == ["i"]

    def test_labels_are_set_in_every_kind_of_group(self, provider: Provider) -> None:
        """By the statements for plain groups, and where others change with it."""
        row = begin(provider)
        expect(one(provider, a_write(row, labels=(("a", "1"),))), Granted)
        row = read(provider).row
        provider.store.commit([an_append("i"), a_write(row, labels=(("b", "2"),))])
        assert read(provider).labels == {"a": "1", "b": "2"}
        row = read(provider).row
        boundary = ExecutionDelta(1, closed=Closing(9, ExecutionEnd.CONTINUED_AS_NEW, None, None))
        write = a_write(
            row,
            a_state(row, execution=2, opened=False),
            executions=(boundary, ExecutionDelta(2, create=an_execution(2))),
            labels=(("a", None),),
        )
        expect(one(provider, write), Granted)
        assert read(provider).labels == {"b": "2"}, "they cross the boundary"
        row = read(provider).row
        expect(one(provider, an_end(row, labels=(("end", "yes"),))), Granted)
        assert read(provider).labels == {"b": "2", "end": "yes"}

    def test_an_operator_sets_labels_beside_an_owner_that_goes_on(self, provider: Provider) -> None:
        row = begin(provider, plan="free", trial="yes")

        def set_labels(**changes: str | None) -> Labelled | None:
            return provider.admin.set_labels("i", changes, by="me", reason=TEXT)

        assert set_labels(plan="pro", trial=None) == Labelled({"plan": "pro"}, is_done=True)
        assert set_labels(plan="pro", trial=None) == Labelled({"plan": "pro"}, is_done=False)
        assert read(provider).labels == {"plan": "pro"}
        expect(one(provider, a_write(row, labels=(("x", "y"),))), Granted)
        assert read(provider).labels == {"plan": "pro", "x": "y"}
        assert [entry[1:3] for entry in self.read_audit(provider)] == [("set labels", "i")]
        expect(one(provider, an_end(read(provider).row)), Granted)
        assert set_labels(x=None) == Labelled({"plan": "pro"}, is_done=True), "it has ended"
        assert provider.admin.set_labels("nobody", {"a": "b"}, by="me", reason="") is None

    def test_an_instance_has_no_more_labels_than_an_operator_may_leave(
        self, provider: Provider
    ) -> None:
        begin(provider, **{f"k{number}": "v" for number in range(63)})

        def set_labels(**changes: str | None) -> Labelled:
            outcome = provider.admin.set_labels("i", changes, by="me", reason="")
            assert outcome is not None
            return outcome

        assert set_labels(one="1").is_done
        refused = set_labels(two="2")
        assert (refused.is_done, refused.too_many, len(refused.labels)) == (False, True, 64)
        assert set_labels(two="2", one=None).is_done
        assert len(read(provider).labels) == 64
