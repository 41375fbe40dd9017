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
from orchestra.client.values import Unreadable

__all__ = [
    "ChildInfo",
    "Client",
    "ExecutionInfo",
    "Handle",
    "HistoryEvent",
    "InstanceInfo",
    "InstancePage",
    "InstanceStatus",
    "NodeInfo",
    "ParentInfo",
    "PendingActivity",
    "PolicyInfo",
    "PurgeReport",
    "UnreadMessage",
    "Unreadable",
    "WaitingOn",
]
