"""Schedules, as pure values and decisions: no clock, no I/O, no async library.

- ``zones``, ``local_clock``: local times and their instants, over gaps and folds;
- ``specs``, ``slots``, ``forms``: when a schedule is due, and how that is stored.
"""

from orchestra.schedules.forms import SPECS, UnknownSpec, spec_from_json, spec_to_json
from orchestra.schedules.slots import (
    Counted,
    count_slots,
    last_slots,
    next_slot,
    slots_between,
)
from orchestra.schedules.specs import (
    AnyOf,
    At,
    Cron,
    Daily,
    Every,
    Except,
    Monthly,
    Spec,
    Weekly,
)

__all__ = [
    "SPECS",
    "AnyOf",
    "At",
    "Counted",
    "Cron",
    "Daily",
    "Every",
    "Except",
    "Monthly",
    "Spec",
    "UnknownSpec",
    "Weekly",
    "count_slots",
    "last_slots",
    "next_slot",
    "slots_between",
    "spec_from_json",
    "spec_to_json",
]
