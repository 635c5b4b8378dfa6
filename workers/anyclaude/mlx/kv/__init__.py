"""KV caches in memory: found by token ids, stored once, kept within a byte budget.

`store` is the entrance. From the bottom up: `window` and `layers` know the cache of one layer,
`live` the mutable cache of a request, `tree` the segments, `lineage` conversations and leases,
`budget` what is evicted; `operations` and `verify` are what an operator runs. `protocols` names
what the store uses without knowing it: storage beyond memory, and listeners.
"""
