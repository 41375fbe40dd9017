"""The client: start, ask, signal, cancel, and look."""

from orchestra.client.client import Client, Handle
from orchestra.client.info import (
    ChildInfo,
    ExecutionInfo,
    InstanceInfo,
    InstancePage,
    InstanceStatus,
    NodeInfo,
    ParentInfo,
    PendingActivity,
    PurgeReport,
    WaitingOn,
)

__all__ = [
    "ChildInfo",
    "Client",
    "ExecutionInfo",
    "Handle",
    "InstanceInfo",
    "InstancePage",
    "InstanceStatus",
    "NodeInfo",
    "ParentInfo",
    "PendingActivity",
    "PurgeReport",
    "WaitingOn",
]
