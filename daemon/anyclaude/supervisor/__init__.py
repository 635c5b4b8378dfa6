"""The daemon, `anyclauded`: starts and supervises the other processes.

Start reading at `lifecycle` (startup, main loop, shutdown) and `supervisor` (the states of one
child, as a table). `modes`, `switch` and `routes` decide which worker answers; `control` is the API
for `anyclaudectl`.
"""
