"""Which executions led to a state, and what they have read, while retention lets go of rows."""

from __future__ import annotations

import pytest

from orchestra.codec import Payload
from orchestra.operations.lineage import lineage, read_by
from orchestra.store.executions import ExecutionRow, Resolution, Rewind
from orchestra.store.kinds import ResolvedBy


def rewound(number, to, *undone):
    resolution = Resolution(ResolvedBy.REWIND, "ada", 1)
    rewind = Rewind(to, tuple(undone))
    return ExecutionRow(
        number, "job", "1.0.0", resolution, Payload(b"1"), None, created_at=0, rewind=rewind
    )


WAY = [
    rewound(3, 1, (1, (1,))),
    rewound(4, 1),
    rewound(5, 3),
    rewound(6, 2),
    rewound(7, 6),
    rewound(8, 4, (1, (1,))),
]
"""Lap 1 has read message 1. Laps 6 and 7 have the state of lap 2, which follows from it."""


@pytest.mark.parametrize(
    ("number", "led"),
    [(2, {1}), (3, set()), (4, set()), (5, set()), (6, {1}), (7, {1}), (8, set())],
)
def test_a_rewind_has_what_led_to_the_state_that_begins_again(number, led):
    assert lineage(number, WAY, 1) == led
    assert read_by(led, WAY) == ({1} if led else set())


@pytest.mark.parametrize("earliest", range(2, 8))
def test_what_a_kept_rewind_has_undone_is_known_when_the_rows_are_gone(earliest):
    kept = [row for row in WAY if row.number >= earliest]
    assert 1 in lineage(7, kept, earliest)
    assert read_by(lineage(7, kept, earliest), kept) == {1}


def test_what_another_way_has_read_is_not_taken_for_this_one():
    assert 1 not in lineage(8, WAY[4:], 7)
