"""KV caches in memory: found by token ids, stored once, kept within a byte budget.

Start reading at `store`. From the bottom up: `window` and `layers` implement the cache of one
layer, `live` the mutable cache of a request, `tree` the segments, `lineage` conversations and
leases, `budget` eviction; `operations` and `verify` are commands of an operator. `protocols`
declares the interfaces that others implement: storage beyond memory, and listeners.
"""
