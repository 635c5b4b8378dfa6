"""`python -m anyclaude.supervisor`, and the command `anyclauded`."""

import sys

import anyclaude.runtime.cheap_start  # noqa: F401 - before all other imports
from anyclaude.supervisor.main import main

if __name__ == "__main__":
    sys.exit(main())
