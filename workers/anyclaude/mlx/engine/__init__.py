"""The scheduler: runs requests on the MLX thread, one prefill chunk or a few tokens a turn.

`engine` is the loop, `generation` one request from lookup to stop reason, `job` its input, `chunks`
the sizes of prefill chunks.
"""
