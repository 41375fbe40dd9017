"""What the witness knows of streams: each item of a granted write or of a current attempt stands
once, under the next offset, and nothing else does.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from orchestra.codec import plain
from orchestra.store.changes import Publish, Write
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Granted, Outcome
from orchestra.store.port import Directory
from orchestra.store.streams import JOURNAL, Published
from tests.support.simulation.instances import WatchedInstance

__all__ = ["WatchedStreams"]


class WatchedStreams:
    """The items of all streams, by instance and stream."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._items: dict[str, dict[str, list[Published]]] = defaultdict(lambda: defaultdict(list))

    def begun(self, instance_id: str) -> None:
        """A new instance has begun: what another one of its id has published is gone."""
        self._items.pop(instance_id, None)

    def written(self, write: Write) -> None:
        """A write was granted."""
        self._add(write.instance_id, write.extras.published)
        self._counts["items of turns"] += len(write.extras.published)

    def published(
        self, instance: WatchedInstance | None, publish: Publish, outcome: Outcome
    ) -> None:
        """Items of an attempt were published, or refused."""
        if not isinstance(outcome, Granted):
            self._counts["items refused"] += len(publish.items)
            return
        attempt = publish.execution, publish.event_id, publish.attempt
        known = {
            item.number
            for items in self._items[publish.instance_id].values()
            for item in items
            if (item.execution, item.event_id, item.attempt) == attempt
        }
        new = tuple(item for item in publish.items if item.number > max(known, default=0))
        self._counts["items repeated"] += len(publish.items) - len(new)
        if new:
            assert instance is not None, f"I6: {publish} is for nothing"
            assert (instance.incarnation, instance.number, instance.status) == (
                publish.incarnation,
                publish.execution,
                Status.OPEN,
            ), f"I6: {publish} is for another lap than {instance}"
            owned = publish.revision is None
            assert not owned or instance.owner == publish.node, f"I6: {publish} has lost {instance}"
        self._add(publish.instance_id, new)
        self._counts["items of activities"] += len(new)

    def check(self, instance: WatchedInstance, directory: Directory) -> None:
        """Hold what is stored against what was published."""
        items = self._items.get(instance.instance_id, {})
        # Journals go with their activities; the check of the store says which are left behind.
        expected = {name: one for name, one in items.items() if not name.startswith(JOURNAL)}
        streams = directory.streams(instance.instance_id)
        stored = [stream for stream in streams if not stream.name.startswith(JOURNAL)]
        assert {stream.name for stream in stored} == set(expected), (
            f"rule 34: {instance} has {stored}, expected are {list(expected)}"
        )
        for name, items in expected.items():
            page = directory.stream(instance.instance_id, name)
            assert page is not None
            found = [
                (item.offset, item.payload, item.execution, item.event_id, item.attempt)
                for item in page.items
            ]
            wanted = [
                (offset, item.payload, item.execution, item.event_id, item.attempt)
                for offset, item in enumerate(items, 1)
            ]
            assert found == wanted[: len(found)], f"rule 34: {name!r} of {instance} is {found}"
            assert len(found) == min(len(wanted), 500), f"rule 34: {name!r} of {instance} has a gap"
        said = [plain(item.payload) for item in expected.get("said", ())]
        assert len(said) == len(set(said)), f"rule 34: {instance} has said twice: {said}"

    def _add(self, instance_id: str, items: tuple[Published, ...]) -> None:
        for item in items:
            self._items[instance_id][item.stream].append(item)
