"""`python -m anyclaude.mlx`: started by the daemon, see `anyclaude.runtime.child`."""

from anyclaude.mlx.main import main

main()
