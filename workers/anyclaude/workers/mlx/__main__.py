"""`python -m anyclaude.workers.mlx`: started by the daemon, see `anyclaude.runtime.child`."""

from anyclaude.workers.mlx.main import main

main()
