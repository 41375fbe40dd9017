"""The engine: synchronous, without threads. It turns items into groups of changes, and outcomes into effects.

``step`` and ``apply`` are one cycle; :class:`~orchestra.engine.cycle.Cycle` adds the commit between them and what
happens when it fails. Who calls it, on which thread, is the runtime's business. Each arrow is a module, or names one::

    items ──► arrivals ──► desks (agenda) ──► stepping ──► flights ──► commit ──► outcomes ──► effects
                  ▲             ▲  │                          ▲                      │
    store ──► inventory ──► ownership ◄── doubts ◄────────────┼──────────────────────┤ refused, or not known
                  claims ─────────────────────────────────────┘     activities ◄─────┘ begun, aborted

An instance that this node owns is on a ``desk``, or away (``absences``), or in doubt (``doubts``). ``ownership`` moves it
between these; its execution may stay ``warm`` when it is let go. ``activities`` runs tries: of own instances
(``running``), and those that were taken of others (``tasks``). ``membership`` is the node's own life and death.
"""
