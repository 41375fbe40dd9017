"""The client: start, ask, signal, cancel, and look."""

from orchestra.client.audit import OperationInfo, OperationPage
from orchestra.client.bulk import BulkFailure, BulkReport
from orchestra.client.client import Client, Handle
from orchestra.client.history import HistoryEvent
from orchestra.client.info import (
    ChildInfo,
    ExecutionInfo,
    Hold,
    InstanceInfo,
    InstancePage,
    InstanceStatus,
    NodeInfo,
    ParentInfo,
    PendingActivity,
    PinInfo,
    PolicyInfo,
    PurgeReport,
    RewindInfo,
    UnreadMessage,
    WaitingOn,
)
from orchestra.client.keys import KeyInfo
from orchestra.client.schedules import BackfillReport, SchedulePage, Schedules
from orchestra.client.selections import (
    InstanceCount,
    InstanceCounts,
    OrderBy,
    Selection,
    WaitingFor,
)
from orchestra.client.streams import StreamInfo, StreamItem
from orchestra.client.summaries import BoundariesDue, StoreSummary
from orchestra.client.sweeping import SweepReport
from orchestra.client.values import Unreadable
from orchestra.client.watching import InstanceChange
from orchestra.operations.bulk import Bulk

__all__ = [
    "BackfillReport",
    "BoundariesDue",
    "Bulk",
    "BulkFailure",
    "BulkReport",
    "ChildInfo",
    "Client",
    "ExecutionInfo",
    "Handle",
    "HistoryEvent",
    "Hold",
    "InstanceChange",
    "InstanceCount",
    "InstanceCounts",
    "InstanceInfo",
    "InstancePage",
    "InstanceStatus",
    "KeyInfo",
    "NodeInfo",
    "OperationInfo",
    "OperationPage",
    "OrderBy",
    "ParentInfo",
    "PendingActivity",
    "PinInfo",
    "PolicyInfo",
    "PurgeReport",
    "RewindInfo",
    "SchedulePage",
    "Schedules",
    "Selection",
    "StoreSummary",
    "StreamInfo",
    "StreamItem",
    "SweepReport",
    "UnreadMessage",
    "Unreadable",
    "WaitingFor",
    "WaitingOn",
]
