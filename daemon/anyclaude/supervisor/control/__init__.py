"""The control API: the daemon's own calls, and the cache verbs, which go on to the MLX worker."""
