"""orchestra: an embeddable runtime for orchestrations that live for ever.

A program registers several versions of an orchestration under one stable name, embeds a :class:`Runtime`, and runs loops that
check, wait, act and *continue as new*. Each lap is a bounded execution on exactly one version; the version changes only at the
lap's end.
"""

from orchestra.activities import Activity, ActivityContext, activity, activity_context
from orchestra.client import (
    ChildInfo,
    Client,
    ExecutionInfo,
    Handle,
    HistoryEvent,
    InstanceInfo,
    InstancePage,
    InstanceStatus,
    NodeInfo,
    ParentInfo,
    PendingActivity,
    PurgeReport,
    Unreadable,
    WaitingOn,
)
from orchestra.context import Limits, OrchestrationContext, RaceResult, TaskGroup
from orchestra.errors import (
    ActivityFailed,
    AlreadyCompleted,
    Cancelled,
    ChildFailed,
    InstanceCompleted,
    InstanceExists,
    InstanceFailed,
    InstanceNotFound,
    InvalidArgument,
    NondeterminismError,
    OrchestraError,
    StoreError,
    UnknownOrchestration,
    UnknownVersion,
    WaitTimeout,
)
from orchestra.futures import DurableFuture, Future
from orchestra.providers.sqlite import SqliteProvider
from orchestra.registry import OrchestrationRegistry, RegistryBuilder
from orchestra.retention import Retention
from orchestra.retry import NO_RETRY, NonRetryable, RetryPolicy
from orchestra.runtime import Runtime
from orchestra.telemetry import ContextFilter, PlainFormatter
from orchestra.versions import Exact, Latest

__all__ = [
    "NO_RETRY",
    "Activity",
    "ActivityContext",
    "ActivityFailed",
    "AlreadyCompleted",
    "Cancelled",
    "ChildFailed",
    "ChildInfo",
    "Client",
    "ContextFilter",
    "DurableFuture",
    "Exact",
    "ExecutionInfo",
    "Future",
    "Handle",
    "HistoryEvent",
    "InstanceCompleted",
    "InstanceExists",
    "InstanceFailed",
    "InstanceInfo",
    "InstanceNotFound",
    "InstancePage",
    "InstanceStatus",
    "InvalidArgument",
    "Latest",
    "Limits",
    "NodeInfo",
    "NonRetryable",
    "NondeterminismError",
    "OrchestraError",
    "OrchestrationContext",
    "OrchestrationRegistry",
    "ParentInfo",
    "PendingActivity",
    "PlainFormatter",
    "PurgeReport",
    "RaceResult",
    "RegistryBuilder",
    "Retention",
    "RetryPolicy",
    "Runtime",
    "SqliteProvider",
    "StoreError",
    "TaskGroup",
    "UnknownOrchestration",
    "UnknownVersion",
    "Unreadable",
    "WaitTimeout",
    "WaitingOn",
    "activity",
    "activity_context",
]
