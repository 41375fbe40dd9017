"""The client: start, ask, signal, cancel, and look."""

from orchestra.client.client import Client, Handle
from orchestra.client.history import HistoryEvent
from orchestra.client.info import (
    ChildInfo,
    ExecutionInfo,
    InstanceInfo,
    InstancePage,
    InstanceStatus,
    NodeInfo,
    ParentInfo,
    PendingActivity,
    PolicyInfo,
    PurgeReport,
    UnreadMessage,
    WaitingOn,
)
from orchestra.client.selections import (
    InstanceCount,
    InstanceCounts,
    OrderBy,
    Selection,
    WaitingFor,
)
from orchestra.client.values import Unreadable

__all__ = [
    "ChildInfo",
    "Client",
    "ExecutionInfo",
    "Handle",
    "HistoryEvent",
    "InstanceCount",
    "InstanceCounts",
    "InstanceInfo",
    "InstancePage",
    "InstanceStatus",
    "NodeInfo",
    "OrderBy",
    "ParentInfo",
    "PendingActivity",
    "PolicyInfo",
    "PurgeReport",
    "Selection",
    "UnreadMessage",
    "Unreadable",
    "WaitingFor",
    "WaitingOn",
]
