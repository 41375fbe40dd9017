"""The engine: synchronous, without threads. It turns what has come in into a group of changes, and
the outcomes of a group into messages for the shell.

:class:`~orchestra.engine.engine.Engine` makes one cycle of ``step`` and ``apply``.
:class:`~orchestra.engine.cycle.Cycle` adds the commit between them, and what happens when it fails.
The runtime calls the cycle, and decides on which thread. Each word is a module::

    step()     messages from the shell          news, from the store
                        │                                │
                        ▼                                ▼
                    activities ─────────────────────► arrivals
                                                         │
                                                         ▼        adopts, drops
                                                     run_queue ◄──────────────── ownership
                                                         │ ready                   ▲   ▲
                                                         ▼                         │   │
                                                       runner ───► blocked_turns ──┘   │
                                                         │                             │
                                                         ▼                             │
                                                       steps                   ownership_check
                                                         │ one write                   ▲
                                                         ▼                             │
                    claims ──────────────────────────► in_flight ══ commit             │
                                                                       ║               │
    apply()    messages to the shell ◄───────────────────────────── outcomes ──────────┘

- ``owned``: an instance that this node owns, in memory; ``attempts``: its pending activities.
- ``run_queue``: which owned instance is stepped next, and which at what time.
- ``ownership``: how an instance comes and goes. The outcome of its last write may be unknown, or
  its code may not return (``blocked_turns``). ``ownership_check`` compares with the store.
- ``steps``: one step of one instance, which ends in one write.
- ``activities``: the attempts that run here, for own instances and as tasks, and their ends until a
  write has recorded them.
- ``claims`` and ``placement``: what the node takes on, and what it hands out, by its free places.
- ``local_starts``: what this node's clients start, and this node takes before it is stored.
- ``in_flight``: the group that is being committed, and how each outcome is handled.
- ``membership``: the node among the others. ``store_time``: the store's clock. ``log_notices``:
  what the log says of single instances.
"""
