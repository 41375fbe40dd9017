"""The engine: synchronous, without threads. It turns items into groups of changes, and outcomes
into effects.

``step`` and ``apply`` are one cycle; :class:`~orchestra.engine.cycle.Cycle` adds the commit between
them and what happens when it fails. Who calls it, on which thread, is the runtime's business. Each
word is a module, or a thing of one::

    items, news ──► arrivals ──► desk ──► stepping ──► flights ══ commit ══► effects ──► shell
                                  ▲                       ▲            ║
    inventory ──────────────► ownership           claims, doubts       ║
                                  ▲                                    ║
                                  ╚════════ activities, arrivals ══════╝

An instance that this node owns is at a ``desk`` of the ``agenda``, or away (``absences``), or in
doubt (``doubts``): ``ownership`` moves it between these, and what it lets go of may stay ``warm``.
``activities`` are the tries that run here, of own instances (``running``) and of others'
(``tasks``). ``membership`` is the node's own life and death. ``notices`` are what the log says of
single instances.
"""
