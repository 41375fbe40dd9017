"""A provider whose store keeps sealed values: it stands before any provider."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

from orchestra.errors import InvalidArgument, PayloadError, StoreError
from orchestra.events import EventForms, EventRecord
from orchestra.payloads.pipeline import Opening, Pipeline, Sealing
from orchestra.store.changes import Change, ScheduleWrite
from orchestra.store.hints import StreamHints
from orchestra.store.instances import HELD_PER_PAGE, HeldPage
from orchestra.store.kinds import Library
from orchestra.store.labels import Labelled
from orchestra.store.messages import InboxPage, QueueName, Unread
from orchestra.store.nudges import Nudged
from orchestra.store.outcomes import Commit
from orchestra.store.port import Admin, Directory, Provider, Store
from orchestra.store.streams import PAGE, Page, StreamPage
from orchestra.store.values import Place, convert_values

__all__ = ["SealingProvider", "with_payloads"]

T = TypeVar("T")

_ROWS: Final = ("get", "list", "schedule", "schedules", "operations")
"""Reads whose answers say themselves which instances they are of."""


def with_payloads(provider: Provider, payloads: Pipeline | None) -> Provider:
    """Return a provider that seals and opens values by a pipeline; without one, the same provider.

    Raises:
        InvalidArgument: it is no pipeline.
    """
    if payloads is None:
        return provider
    if not isinstance(payloads, Pipeline):  # pyright: ignore[reportUnnecessaryIsInstance] - users
        raise InvalidArgument(
            f"payloads is {payloads!r}; give Pipeline(Compress(), Encrypt(keys)), say"
        )
    if isinstance(provider, SealingProvider):
        if provider.pipeline is payloads:
            return provider
        raise InvalidArgument("the provider has a pipeline already; give payloads= only once")
    return SealingProvider(provider, payloads)


class SealingProvider(Provider):
    """Seals what is written to another provider, and opens what is read from it."""

    has_payloads: bool = True

    def __init__(self, inner: Provider, pipeline: Pipeline) -> None:
        self.inner: Provider = inner
        self.pipeline: Pipeline = pipeline
        self.library: Library = inner.library
        forms = inner.library.events
        self.store: Store = cast("Store", _SealingStore(inner, pipeline, forms))
        self.directory: Directory = cast("Directory", _OpeningDirectory(inner, pipeline, forms))
        self.admin: Admin = cast("Admin", _SealingAdmin(inner, pipeline))

    @property
    def stream_hints(self) -> StreamHints:
        """Those of the other provider: clients with another pipeline may share it."""
        return self.inner.stream_hints

    def reserve(self, runtime: str) -> None:
        """Reserve the other provider."""
        self.inner.reserve(runtime)

    def vacate(self, runtime: str) -> None:
        """Free the other provider."""
        self.inner.vacate(runtime)

    def may_open(self, tried: Collection[str]) -> bool:
        """Return whether the pipeline has what was missing when an instance was held."""
        return self.pipeline.may_open(tried)

    @property
    def description(self) -> str:
        """The name and address of the other provider."""
        return self.inner.description

    def open(self) -> None:
        """Open the other provider, and have it find sealed values by their keys."""
        self.inner.open()
        try:
            self.inner.index_keys()
        except BaseException:
            self.inner.close()
            raise

    def close(self) -> None:
        """Close the other provider."""
        self.inner.close()


class _Part:
    """A part of the other provider. What needs no conversion goes straight to it."""

    def __init__(self, inner: Provider, pipeline: Pipeline, forms: EventForms) -> None:
        self._inner = inner
        self._pipeline = pipeline
        self._forms = forms

    def _opened(self, thing: T, place: Place = Place()) -> T:  # noqa: B008 - it is immutable
        return convert_values(thing, Opening(self._pipeline), place, self._forms)


class _SealingStore(_Part):
    """The engine's view of the store, with plain values."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner.store, name)

    def commit(self, changes: Sequence[Change]) -> Commit:
        sealing, forms = Sealing(self._pipeline), self._forms
        try:
            sealed = [convert_values(change, sealing, forms=forms) for change in changes]
        except PayloadError as error:
            raise StoreError(f"a value cannot be sealed: {error}") from error
        sealing.store()
        commit = self._inner.store.commit(sealed)
        opening = Opening(self._pipeline, sealing.sealed)
        outcomes = tuple(
            convert_values(outcome, opening, _place_of(change), forms)
            for change, outcome in zip(changes, commit.outcomes, strict=True)
        )
        return Commit(commit.now, outcomes)

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        place = Place(instance_id, (), execution)
        records = self._inner.store.history(instance_id, execution)
        return [self._opened(record, place) for record in records]

    def news(self, node_id: str, page: InboxPage = InboxPage()) -> list[Any]:  # noqa: B008
        return [self._opened(news) for news in self._inner.store.news(node_id, page)]

    def unread(
        self,
        instance_id: str,
        after: Mapping[QueueName, int],
        up_to: int,
        page: InboxPage = InboxPage(),  # noqa: B008 - it is immutable
    ) -> dict[QueueName, Unread]:
        found = self._inner.store.unread(instance_id, after, up_to, page)
        place = Place(instance_id)
        return {name: self._opened(unread, place) for name, unread in found.items()}

    def due_schedules(
        self, now: int, limit: int, after: tuple[int, str] | None = None
    ) -> Sequence[Any]:
        return [self._opened(due) for due in self._inner.store.due_schedules(now, limit, after)]

    def taken(self, node_id: str) -> list[Any]:
        return [self._opened(task) for task in self._inner.store.taken(node_id)]

    def held(
        self,
        names: Sequence[str],
        after: tuple[int, str] | None = None,
        limit: int = HELD_PER_PAGE,
    ) -> HeldPage:
        page = self._inner.store.held(names, after, limit)
        return replace(page, rows=tuple(self._opened(row) for row in page.rows))


class _OpeningDirectory(_Part):
    """Reads for people, with plain values. What does not open stays sealed, and is shown so."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner.directory, name)
        if name not in _ROWS:
            return method

        def read(*arguments: Any, **named: Any) -> Any:
            found = method(*arguments, **named)
            if isinstance(found, (list, tuple)):
                return [self._opened(row) for row in cast("Sequence[Any]", found)]
            return self._opened(found)

        return read

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        place = Place(instance_id, (), execution)
        records = self._inner.directory.history(instance_id, execution)
        return [self._opened(record, place) for record in records]

    def envelopes(
        self, instance_id: str, execution: int, events: Sequence[int]
    ) -> list[EventRecord]:
        place = Place(instance_id, (), execution)
        records = self._inner.directory.envelopes(instance_id, execution, events)
        return [self._opened(record, place) for record in records]

    def executions(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[Any]:
        rows = self._inner.directory.executions(instance_id, after, limit)
        return [self._opened(row, Place(instance_id)) for row in rows]

    def messages(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[Any]:
        rows = self._inner.directory.messages(instance_id, after, limit)
        return [self._opened(row, Place(instance_id)) for row in rows]

    def request(self, instance_id: str, request_id: str) -> Any:
        state = self._inner.directory.request(instance_id, request_id)
        return self._opened(state, Place(instance_id))

    def stream(
        self, instance_id: str, name: str, after: int = 0, page: Page = PAGE
    ) -> StreamPage | None:
        found = self._inner.directory.stream(instance_id, name, after, page)
        return self._opened(found, Place(instance_id))


class _SealingAdmin:
    """Operators' writes, with their reasons sealed. A version policy has none of instances."""

    def __init__(self, inner: Provider, pipeline: Pipeline) -> None:
        self._inner = inner
        self._pipeline = pipeline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner.admin, name)

    def _sealed(self, reason: str, instance_id: str) -> str:
        return Sealing(self._pipeline).text(reason, Place(instance_id, ("text",)))

    def set_pin(self, instance_id: str, version: str | None, *, reason: str, **named: Any) -> bool:
        sealed = self._sealed(reason, instance_id)
        return self._inner.admin.set_pin(instance_id, version, reason=sealed, **named)

    def nudge(
        self, instance_id: str, incarnation: str, execution: int, *, by: str, reason: str
    ) -> Nudged:
        sealed = self._sealed(reason, instance_id)
        return self._inner.admin.nudge(instance_id, incarnation, execution, by=by, reason=sealed)

    def set_labels(
        self, instance_id: str, changes: Mapping[str, str | None], *, by: str, reason: str
    ) -> Labelled | None:
        sealed = self._sealed(reason, instance_id)
        return self._inner.admin.set_labels(instance_id, changes, by=by, reason=sealed)

    def delete(self, instance_id: str, incarnation: str, *, by: str, reason: str) -> bool:
        sealed = self._sealed(reason, instance_id)
        return self._inner.admin.delete(instance_id, incarnation, by=by, reason=sealed)

    def delete_all(
        self, instances: Sequence[tuple[str, str]], *, by: str, reason: str
    ) -> list[str]:
        sealed = self._sealed(reason, "")
        return self._inner.admin.delete_all(instances, by=by, reason=sealed)


def _place_of(change: Change) -> Place:
    """Return the place around the answer to a change."""
    if isinstance(change, ScheduleWrite):
        return Place("", ("schedule", change.schedule_id))
    return Place(getattr(change, "instance_id", ""))
