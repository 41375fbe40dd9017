"""The contract of a provider, as tests that every provider must pass.

A provider's test module subclasses :class:`ProviderContract` and says how one is made::

    class TestSqlite(ProviderContract):
        def make_provider(self, location: Path, clock: Clock, library: Library = THIS_LIBRARY) ->
        Provider:
            return SqliteProvider(location / "store.db", clock=clock, library=library)

        def read_audit(self, provider: Provider) -> list[Operation]:
            return ...

The tests name the rules of the commit protocol and the invariants that they hold. Where two things
race, both orders are tried. Each module of this package holds the tests of one subject; what they
are written with is in :mod:`~orchestra.testing.contract.shorthand`.
"""

from __future__ import annotations

from orchestra.testing.contract.ages import AgeTests
from orchestra.testing.contract.cancels import CancelTests
from orchestra.testing.contract.children import ChildTests
from orchestra.testing.contract.claims import ClaimTests
from orchestra.testing.contract.comparison import ComparisonTests
from orchestra.testing.contract.connections import ConnectionTests
from orchestra.testing.contract.directory import DirectoryTests
from orchestra.testing.contract.executions import ExecutionTests
from orchestra.testing.contract.fences import FenceTests
from orchestra.testing.contract.groups import GroupTests
from orchestra.testing.contract.holds import HoldTests
from orchestra.testing.contract.lifetimes import LifetimeTests
from orchestra.testing.contract.messages import MessageTests
from orchestra.testing.contract.nodes import NodeTests
from orchestra.testing.contract.operators import OperatorTests
from orchestra.testing.contract.retention import RetentionTests
from orchestra.testing.contract.tasks import TaskTests
from orchestra.testing.contract.traces import TraceTests

__all__ = ["ProviderContract"]


class ProviderContract(
    GroupTests,
    FenceTests,
    MessageTests,
    ClaimTests,
    LifetimeTests,
    ExecutionTests,
    CancelTests,
    ChildTests,
    HoldTests,
    OperatorTests,
    RetentionTests,
    NodeTests,
    TaskTests,
    DirectoryTests,
    ConnectionTests,
    TraceTests,
    AgeTests,
    ComparisonTests,
):
    """Subclass it as ``Test...`` and implement :meth:`make_provider` and :meth:`read_audit`."""
