"""The scheduler: runs requests on the MLX thread, one prefill chunk or a few tokens a turn."""
