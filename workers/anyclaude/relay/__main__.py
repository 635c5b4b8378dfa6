"""`python -m anyclaude.relay`: started by the daemon, see `anyclaude.runtime.child`."""

from anyclaude.relay.main import main

main()
