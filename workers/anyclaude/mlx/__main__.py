"""`python -m anyclaude.mlx`: started by the daemon, see `anyclaude.runtime.child`."""

import gc

# Imports make millions of objects that stay, and collecting garbage among them would take a fifth
# of the start's CPU time. `Child.ready` enables collections again.
gc.disable()

from anyclaude.mlx.main import main  # noqa: E402 - see above

main()
