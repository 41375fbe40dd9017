"""The client: start, ask, signal, cancel, and look."""

from orchestra.client.client import Client, Handle
from orchestra.client.info import (
    ExecutionInfo,
    InstanceInfo,
    InstancePage,
    InstanceStatus,
    PendingActivity,
    PurgeReport,
    WaitingOn,
)

__all__ = [
    "Client",
    "ExecutionInfo",
    "Handle",
    "InstanceInfo",
    "InstancePage",
    "InstanceStatus",
    "PendingActivity",
    "PurgeReport",
    "WaitingOn",
]
