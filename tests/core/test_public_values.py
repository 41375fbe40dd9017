"""What users are given says instants and durations as such, and holds nothing of the stored form
(chapter 8 of the design).
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

import orchestra
from orchestra import errors
from orchestra.codec import Payload
from orchestra.errors import Attempt, ErrorInfo
from orchestra.events import EventKind, EventRecord

STORED = (bytes, bytearray, memoryview, Payload, EventRecord)
INSTANT = re.compile(r"(^|_)(at|since|until|due|from|before)$")
DURATION = re.compile(r"(^|_)(timeout|interval|deadline|delay|lease|wait|duration)$")
PLUMBING = {
    "Client.attached",
    "Client.record_with",
    "Runtime.submit",
    "Runtime.watch",
    "Activity.signature",
    "Pipeline.seal",
    "Pipeline.open",
    "Compress.apply",
    "Encrypt.seal",
    "Encrypt.open",
}
"""What only the library's own parts ask of each other."""

BYTES = {"Keys.generate", "DirectoryStorage.get", "S3Storage.get"}
"""What is bytes for its users as well."""

EXPORTS = {"Client.export_history"}
"""What is a document for another program to read, and holds stored values as they are."""


def hints(subject):
    """Return the annotations of a class or function, by name."""
    return typing.get_type_hints(
        subject,
        localns={
            "Client": orchestra.Client,
            "OrchestrationContext": orchestra.OrchestrationContext,
        },
    )


def named(annotation):
    """Return all types that an annotation names."""
    parts = [part for argument in typing.get_args(annotation) for part in named(argument)]
    return [annotation, *parts] if isinstance(annotation, type) else parts


def told_by(cls):
    """Return what a class lets its users see: (name, annotation) of fields, of properties, of what
    its methods return.
    """
    if dataclasses.is_dataclass(cls):
        annotations = hints(cls)
        own = [
            field.name
            for field in dataclasses.fields(cls)
            if field.repr and f"{cls.__name__}.{field.name}" not in PLUMBING
        ]
        yield from ((name, annotations[name]) for name in own)
    if issubclass(cls, BaseException) and "__init__" in vars(cls):
        # Errors keep what they were made of.
        yield from (
            (name, annotation)
            for name, annotation in hints(cls.__init__).items()
            if name != "return"
        )
    for name, member in vars(cls).items():
        function = (
            member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        )
        if (
            name.startswith("_")
            or not inspect.isfunction(function)
            or f"{cls.__name__}.{name}" in PLUMBING | EXPORTS | BYTES
        ):
            continue
        yield name, hints(function).get("return", object)


def public():
    """Return the classes that users meet: those that are exported, and whatever these tell of, and
    so on.
    """
    exported = [getattr(orchestra, name) for name in orchestra.__all__] + [
        getattr(errors, name) for name in errors.__all__
    ]
    waiting = [one for one in exported if inspect.isclass(one)]
    found = {}
    while waiting:
        cls = waiting.pop()
        if cls in found or not cls.__module__.startswith("orchestra"):
            continue
        found[cls] = list(told_by(cls))
        waiting += [one for _, annotation in found[cls] for one in named(annotation)]
    return found


def complaints(cls, told):
    """Return what a user would have to know of the store in order to read this."""
    for name, annotation in told:
        types = named(annotation)
        if any(one in STORED for one in types):
            yield f"{cls.__qualname__}.{name} holds the stored form: {annotation}"
        if int in types and (INSTANT.search(name) or DURATION.search(name)):
            yield f"{cls.__qualname__}.{name} is a number of unknown unit: {annotation}"


def test_no_public_value_holds_stored_bytes_or_an_instant_as_a_number():
    found = public()
    names = {cls.__name__ for cls in found}
    assert {
        "HistoryEvent",
        "Attempt",
        "InstanceInfo",
        "WaitingOn",
        "PendingActivity",
        "NodeInfo",
        "ExecutionInfo",
    } <= names
    assert {
        "PurgeReport",
        "ActivityFailed",
        "RetryPolicy",
        "ActivityContext",
        "ErrorInfo",
        "Unreadable",
    } <= names
    assert [complaint for cls, told in found.items() for complaint in complaints(cls, told)] == []


@dataclass
class Raw:
    at: int
    renewed_at: int | None
    output: Payload | None
    parts: tuple[bytes, ...]
    timeout: int | None
    format: int = 1
    matter: str = ""


def test_the_search_finds_what_it_searches_for():
    found = [complaint.split()[0] for complaint in complaints(Raw, told_by(Raw))]
    assert found == ["Raw.at", "Raw.renewed_at", "Raw.output", "Raw.parts", "Raw.timeout"]


def test_a_user_reads_when_a_try_ended_as_an_aware_datetime():
    attempt = Attempt(1, datetime(2026, 11, 21, 12, tzinfo=UTC), ErrorInfo("ValueError", "boom"))
    failed = errors.ActivityFailed("probe", attempt.error, [attempt], "attempts exhausted")
    assert failed.attempts == (attempt,)
    assert failed.attempts[0].ended_at.tzinfo is UTC


@pytest.mark.parametrize("kind", EventKind)
def test_every_kind_of_event_has_its_name_for_people(kind):
    assert kind.name.lower() in (orchestra.HistoryEvent.__doc__ or "")
