"""Live pages: which topics of a page have changed, as server-sent events.

All pages of a process share one watcher. While the store is quiet it looks at each topic every few
seconds; after a hint of a change, once a second at most.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

import anyio
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response

from orchestra.client import Client
from orchestra.client.hinted import StoreWatch
from orchestra.client.summaries import SEARCHED
from orchestra.errors import InstanceNotFound, InvalidArgument, OrchestraError, ScheduleNotFound
from orchestra.web.dashboard.filters import selection_of
from orchestra.web.event_streams import EventStream, event

__all__ = ["Watcher", "pages", "watcher_of"]

_PACE: Final = 1.0
"""Seconds between two looks, at least: changes are coalesced."""
_SOON: Final = 2.0
"""Seconds after which a topic of one thing is looked at without a hint."""
_LATER: Final = 10.0
"""... and one that costs more."""
_TOPICS: Final = 8
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)

pages: APIRouter = APIRouter(include_in_schema=False)

_Read = Callable[[], Awaitable[Any]]


@pages.get("/changes")
async def changes(request: Request, topic: list[str] = Query(default_factory=list)) -> Response:  # noqa: B008
    """Stream which of some topics have changed."""
    watcher = watcher_of(request)
    if not 0 < len(topic) <= _TOPICS:
        raise HTTPException(422, f"give 1 to {_TOPICS} topics")
    for one in topic:
        watcher.check(one)

    async def events() -> AsyncGenerator[bytes]:
        yield b"retry: 3000\n\n"
        async for changed in watcher.follow(topic):
            yield event(changed)

    return EventStream(events())


def watcher_of(request: Request) -> Watcher:
    """Return the watcher of the application."""
    state = request.app.state
    if not hasattr(state, "watcher"):
        state.watcher = Watcher(state.client)
    watcher: Watcher = state.watcher
    return watcher


class _Follower:
    """A page that follows topics."""

    def __init__(self, topics: Sequence[str]) -> None:
        self.topics = frozenset(topics)
        self.changed: set[str] = set()
        self.woken = anyio.Event()

    def wake(self) -> None:
        self.woken.set()
        self.woken = anyio.Event()


class _Seen:
    """What was read of a topic last, and when."""

    __slots__ = ("at", "value")

    def __init__(self) -> None:
        self.at = float("-inf")
        self.value: Any = None


class Watcher:
    """Looks at the topics that pages follow, for all of them at once.

    It has no task of its own: of the pages that wait, one leads. It looks for all, and hands over
    before it sends anything, so that a slow reader delays no other.

    Args:
        pace: seconds between two looks after hints.
        soon: seconds between two looks at a topic of one thing, without hints.
        later: ... at a topic that costs more.
    """

    def __init__(
        self, client: Client, *, pace: float = _PACE, soon: float = _SOON, later: float = _LATER
    ) -> None:
        self._client = client
        self._pace, self._soon, self._later = pace, soon, later
        self._followers: list[_Follower] = []
        self._leader: _Follower | None = None
        self._seen: dict[str, _Seen] = {}

    def check(self, topic: str) -> None:
        """Raise unless there is such a topic.

        Raises:
            InvalidArgument: there is not.
        """
        self._reader(topic)

    async def follow(self, topics: Sequence[str]) -> AsyncGenerator[list[str]]:
        """Yield those of some topics that have changed, whenever any has. It never ends by
        itself.
        """
        follower = _Follower(topics)
        self._followers.append(follower)
        try:
            while True:
                if self._leader is None:
                    self._leader = follower
                    try:
                        await self._lead(follower)
                    finally:
                        self._leader = None
                        self._wake_another(follower)
                elif not follower.changed:
                    await follower.woken.wait()
                if follower.changed:
                    changed, follower.changed = sorted(follower.changed), set()
                    yield changed
        finally:
            self._followers.remove(follower)
            wanted = self._wanted()
            self._seen = {topic: seen for topic, seen in self._seen.items() if topic in wanted}

    def _wanted(self) -> set[str]:
        return set[str]().union(*(one.topics for one in self._followers))

    def _wake_another(self, leader: _Follower) -> None:
        """Wake a page that waits, so that it leads."""
        other = next((one for one in self._followers if one is not leader), None)
        if other is not None:
            other.wake()

    async def _lead(self, leader: _Follower) -> None:
        """Look for all pages until the leading page has something to send."""
        await self._look(told=False)
        if leader.changed:
            return
        with self._client.watch_store(timedelta(seconds=self._soon)) as watch:
            while not leader.changed:
                told = await self._wait(watch)
                await self._look(told=told)

    async def _wait(self, watch: StoreWatch) -> bool:
        told = await watch.wait()
        if told:
            await anyio.sleep(self._pace)  # what changes meanwhile is seen in the same look
        return told

    async def _look(self, *, told: bool) -> None:
        """Read the topics that are due, and wake the pages of those that have changed."""
        for topic in sorted(self._wanted()):
            read, pause = self._reader(topic)
            seen = self._seen.get(topic)
            is_new = seen is None
            if seen is None:
                seen = self._seen[topic] = _Seen()
            now = anyio.current_time()
            if not told and now - seen.at < pause:
                continue
            seen.at = now
            try:
                value = await read()
            except (InstanceNotFound, ScheduleNotFound):
                value = None
            except OrchestraError:
                continue  # the store is busy or away: the next look may find it
            if value == seen.value or is_new:
                seen.value = value
                continue
            seen.value = value
            for follower in self._followers:
                if topic in follower.topics:
                    follower.changed.add(topic)
                    follower.wake()

    def _reader(self, topic: str) -> tuple[_Read, float]:
        client = self._client
        kind, _, subject = topic.partition(":")
        match kind:
            case "instance" if subject:
                return lambda: client.get_instance_info(subject), self._soon
            case "schedule" if subject:
                return lambda: client.schedules.get(subject), self._soon
            case "schedules":
                return lambda: client.schedules.list(limit=50), self._later
            case "audit":
                return lambda: client.list_operations(limit=1), self._soon
            case "nodes":
                return self._nodes, self._soon
            case "versions":
                return client.version_report, self._later
            case "overview" | "held":
                return self._summary, self._later
            case "list":
                return self._list(subject), self._later
            case _:
                raise InvalidArgument(f"{topic!r} is no topic of a page")

    def _list(self, query: str) -> _Read:
        values = dict(parse_qsl(query))
        selection = selection_of(values)
        order, page = values.get("order_by") or "newest", values.get("page")
        return lambda: self._client.list_instances(
            selection, order_by=order, limit=50, page=page, search_limit=SEARCHED
        )

    async def _nodes(self) -> Any:
        return [replace(node, renewed_at=_NEVER) for node in await self._client.list_nodes()]

    async def _summary(self) -> Any:
        summary = await self._client.summarize_store()
        nodes = [(node.node_id, node.alive) for node in await self._client.list_nodes()]
        return replace(summary, at=_NEVER), nodes
