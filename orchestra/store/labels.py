"""Labels that an operator changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestra.ids import MOST_LABELS

__all__ = ["Labelled", "relabelled"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """The outcome of a change of labels. ``labels`` are those that the instance has now.

    ``is_done``: they were changed. Otherwise they were so already, or there would be ``too_many``.
    """

    labels: Mapping[str, str]
    is_done: bool
    too_many: bool = False


def relabelled(standing: Mapping[str, str], changes: Mapping[str, str | None]) -> Labelled:
    """Return the outcome of changes; ``None`` removes a label."""
    wanted = {**standing, **changes}
    after = {key: value for key, value in wanted.items() if value is not None}
    if after == dict(standing):
        return Labelled(standing, is_done=False)
    if len(after) > max(MOST_LABELS, len(standing)):
        return Labelled(standing, is_done=False, too_many=True)
    return Labelled(after, is_done=True)
