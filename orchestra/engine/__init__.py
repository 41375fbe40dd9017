"""The engine: synchronous, without threads. It turns items into groups of changes, and outcomes into effects.

``step`` and ``apply`` are one cycle; :class:`~orchestra.engine.cycle.Cycle` adds the commit between them and what
happens when it fails. Who calls it, on which thread, is the runtime's business.
"""
