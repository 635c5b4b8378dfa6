"""The benchmark for users: how long an endpoint takes to its first token, and what a cache saves.

Read `trials` first: it asks the questions. `endpoint` sends them, `figures` keeps what was
measured.
"""
