"""`python -m anyclaude.workers.relay`: started by the daemon, see `anyclaude.runtime.child`."""

from anyclaude.workers.relay.main import main

main()
