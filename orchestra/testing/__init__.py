"""What tests of providers and of services need: a reference store in memory, a clock that is set by
hand, a store checker.

The contract that every provider must pass is in :mod:`orchestra.testing.contract`; it needs pytest
and hypothesis.
"""

from __future__ import annotations

from orchestra.testing.checker import (
    InvariantsViolated,
    Report,
    StoredDrift,
    Violation,
    check_store,
)
from orchestra.testing.model import ManualClock, ModelProvider, ModelWorld

__all__ = [
    "InvariantsViolated",
    "ManualClock",
    "ModelProvider",
    "ModelWorld",
    "Report",
    "StoredDrift",
    "Violation",
    "check_store",
]
