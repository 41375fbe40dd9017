"""The commit protocol, decided in memory: from changes and stored rows to outcomes and new rows.

```
changes ─► Needs ─► a provider locks and reads ─► Facts ─► decide ─► Decision ─► a provider writes
```

Nothing here reads or writes a store, knows a clock, or waits. A provider supplies the facts and
carries out the decision, with statements that suit its database.
"""
