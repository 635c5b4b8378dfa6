"""The MLX worker: loads a model, keeps every KV cache, and generates answers.

A request goes through `service` (the worker contract), `jobs` (parsing and tokenising, with
`prompt`), `engine` (one turn at a time, with caches from `kv`) and `decode` (tokens to blocks).
`kv_disk` stores caches on disk, `kv_explain` finds out why a prompt was computed again, and `main`
connects all parts.
"""
