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
are written with is in :mod:`~tests.support.contract.shorthand`.
"""

from __future__ import annotations

from tests.support.contract.ages import AgeTests
from tests.support.contract.asides import AsideTests
from tests.support.contract.audit import AuditTests
from tests.support.contract.background import BackgroundChildTests
from tests.support.contract.cancels import CancelTests
from tests.support.contract.children import ChildTests
from tests.support.contract.claims import ClaimTests
from tests.support.contract.comparison import ComparisonTests
from tests.support.contract.connections import ConnectionTests
from tests.support.contract.control import (
    BeginAgainTests,
    GoingBackTests,
    HoldByOperatorTests,
)
from tests.support.contract.directory import DirectoryTests
from tests.support.contract.executions import ExecutionTests
from tests.support.contract.families import FamilyTests
from tests.support.contract.fences import FenceTests
from tests.support.contract.groups import GroupTests
from tests.support.contract.holds import HoldTests
from tests.support.contract.labels import LabelTests
from tests.support.contract.lifetimes import LifetimeTests
from tests.support.contract.messages import MessageTests
from tests.support.contract.nodes import NodeTests
from tests.support.contract.nudges import DueTests, NudgeTests
from tests.support.contract.operators import OperatorTests
from tests.support.contract.policies import PolicyTests
from tests.support.contract.requests import RequestTests
from tests.support.contract.retention import RetentionTests
from tests.support.contract.schedules import ScheduleTests
from tests.support.contract.selections import SelectionTests
from tests.support.contract.sends import SendTests
from tests.support.contract.sessions import SessionTests
from tests.support.contract.starts import FirstTurnTests, StartTests
from tests.support.contract.streams import ItemsOfActivitiesTests, StreamTests
from tests.support.contract.tallies import TallyTests
from tests.support.contract.tasks import TaskTests
from tests.support.contract.traces import TraceTests

__all__ = ["ProviderContract"]


class ProviderContract(
    GroupTests,
    FenceTests,
    MessageTests,
    RequestTests,
    AsideTests,
    ClaimTests,
    LifetimeTests,
    ExecutionTests,
    CancelTests,
    ChildTests,
    BackgroundChildTests,
    HoldTests,
    HoldByOperatorTests,
    BeginAgainTests,
    GoingBackTests,
    OperatorTests,
    AuditTests,
    LabelTests,
    NudgeTests,
    DueTests,
    PolicyTests,
    RetentionTests,
    FamilyTests,
    SendTests,
    StartTests,
    FirstTurnTests,
    SessionTests,
    NodeTests,
    StreamTests,
    ItemsOfActivitiesTests,
    TallyTests,
    TaskTests,
    DirectoryTests,
    ScheduleTests,
    SelectionTests,
    ConnectionTests,
    TraceTests,
    AgeTests,
    ComparisonTests,
):
    """Subclass it as ``Test...`` and implement :meth:`make_provider` and :meth:`read_audit`."""
