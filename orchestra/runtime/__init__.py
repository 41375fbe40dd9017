"""The runtime: one node, embedded in a service. Composition root and anyio shell."""

from orchestra.runtime.runtime import Runtime

__all__ = ["Runtime"]
