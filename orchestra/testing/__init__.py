"""What tests of providers and of services need: a reference store in memory, a clock that is set by hand.

The contract that every provider must pass is in :mod:`orchestra.testing.contract`; it needs pytest and hypothesis.
"""

from __future__ import annotations

from orchestra.testing.model import ManualClock, ModelProvider, ModelWorld

__all__ = ["ManualClock", "ModelProvider", "ModelWorld"]
