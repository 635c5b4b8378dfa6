"""The control socket: what the daemon answers itself, and the cache verbs that it forwards."""
