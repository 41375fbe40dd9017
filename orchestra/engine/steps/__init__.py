"""Steps: from an instance and what has come for it to the one write that records what followed.

A step runs the instance's code. It may be abandoned if the code does not return, so it changes
nothing but its instance, and reads nothing from the store::

    stepper ──► opening      a new execution on its version, or a stored one by replay
       │   ───► (a turn of orchestra.replay)
       │   ───► children     starts and cancels of other instances
       │   ───► boundaries   the end of an execution, and the next one
       │   ───► holding      a fault of the instance, and what its hold keeps
       │   ───► records      what telemetry is told
       ▼
     step                    what was gathered, as one write and messages for the shell
"""
