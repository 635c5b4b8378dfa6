"""`python -m anyclaude.mlx`: started by the daemon, see `anyclaude.runtime.child`."""

import gc

# Imports make millions of objects, and nearly all of them stay: garbage collections among them are
# a fifth of the start's CPU time. `Child.ready` enables collections again.
gc.disable()

from anyclaude.mlx.main import main  # noqa: E402 - see above

main()
