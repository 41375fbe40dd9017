"""The HTTP bodies: requests, and the parts of instances and executions in answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from watches import Config, Seconds, Url

from orchestra import InstanceStatus, PendingActivity, WaitingOn

InstanceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]


# --- in: everything is checked here, so that an event that the loop waits for always fits ---


class Start(BaseModel):
    """Start watching a URL."""

    url: Url
    pause_seconds: Seconds = 60.0
    instance_id: InstanceId | None = None
    version: str | None = None
    labels: dict[str, str] = {}


class StopEvent(BaseModel):
    """End the loop after its current probe."""

    name: Literal["stop"]


class ConfigEvent(BaseModel):
    """Change the watched URL, or the pause."""

    name: Literal["config"]
    payload: Config


Event = Annotated[StopEvent | ConfigEvent, Field(discriminator="name")]


# --- out ---


class ErrorView(BaseModel):
    """The reason of a failure; its traceback stays inside."""

    model_config = ConfigDict(from_attributes=True)

    type: str
    message: str


class InstanceView(BaseModel):
    """An instance, as :class:`orchestra.InstanceInfo` has it."""

    model_config = ConfigDict(from_attributes=True)

    instance_id: str
    name: str
    version: str
    target_version: str
    status: InstanceStatus
    held_reason: str | None
    execution_id: int
    custom_status: Any
    input: Any
    output: Any
    error: ErrorView | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    next_wake_at: datetime | None
    waiting_on: tuple[WaitingOn, ...]
    pending_activities: tuple[PendingActivity, ...]
    unread_messages: int
    labels: dict[str, str]


class PageView(BaseModel):
    """A page of instances; give ``next_page`` back as ``page`` to get what follows."""

    model_config = ConfigDict(from_attributes=True)

    items: tuple[InstanceView, ...]
    next_page: str | None


class ExecutionView(BaseModel):
    """One lap of an instance, as :class:`orchestra.ExecutionInfo` has it."""

    model_config = ConfigDict(from_attributes=True)

    execution_id: int
    version: str
    resolved_by: str
    status: str
    input: Any
    output: Any
    error: ErrorView | None
    started_at: datetime | None
    ended_at: datetime | None
    history_events: int
