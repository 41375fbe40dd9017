"""A store in plain dictionaries: the shortest statement of what a provider does.

It is slow, keeps nothing, and serves as the reference that real providers are compared with, and as
a store for tests of the engine. All values are immutable; a commit that fails puts the old
dictionaries back.
"""

from __future__ import annotations

from tests.support.model.provider import ModelProvider
from tests.support.model.world import ModelWorld

__all__ = ["ModelProvider", "ModelWorld"]
