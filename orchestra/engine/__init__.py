"""The engine: synchronous, without threads. It turns what has come in into a group of changes, and
the outcomes of a group into messages for the shell.

:class:`~orchestra.engine.engine.Engine` makes one cycle of ``step`` and ``apply``.
:class:`~orchestra.engine.cycle.Cycle` adds the commit between them, and what happens when it fails.
The runtime calls the cycle, and decides on which thread. Each word is a module, or a class of
one::

                   messages                          store
                      │ ToEngine                       │ news, claims
                      ▼                                ▼
    step()        activities, arrivals ────────► run_queue ◄──── ownership, ownership_check
                                                     │ ready            ▲         │ blocked_turns
                                                     ▼                  │
                   runner ──► stepper: opening, boundaries, holding,    │
                                       children, placement              │
                                                     │ step             │
                                                     ▼                  │
                                claims ────────► in_flight ═ commit     │
                                                               ║        │
    apply()                    messages ◄──────────────── outcomes ─────┘
                      │ ToShell
                      ▼
                   the shell

- ``owned``: an instance that this node owns, in memory; ``attempts``: its pending activities.
- ``run_queue``: which owned instance is stepped next, and which at what time.
- ``ownership``: how an instance comes and goes. Its last write may have an unknown outcome, or its
  code may not return (``blocked_turns``). A released instance leaves its execution in a cache.
- ``stepper``: one step of one instance, which ends in one write (``step``).
- ``activities``: the attempts that run here, for own instances and as tasks, and their ends until a
  write has recorded them.
- ``claims`` and ``placement``: what the node takes on, and what it hands out, by its free places.
- ``membership``: the node among the others. ``store_time``: the store's clock.
- ``telemetry``: what operators are told.
"""
