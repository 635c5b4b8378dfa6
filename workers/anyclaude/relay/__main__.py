"""`python -m anyclaude.relay`: started by the daemon, see `anyclaude.runtime.child`."""

import anyclaude.runtime.cheap_start  # noqa: F401 - before all other imports
from anyclaude.relay.main import main

main()
