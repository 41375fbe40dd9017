"""The commit protocol, decided in memory: from a group of changes and what is stored to outcomes
and the rows that result.

```
changes ─► Needs ─► a provider locks and reads ─► Facts ─► decide ─► Decision ─► a provider writes
```

Nothing in here reads or writes a store, knows a clock, or waits. A provider supplies the facts and
carries out the decision, with the statements that its database likes.
"""
