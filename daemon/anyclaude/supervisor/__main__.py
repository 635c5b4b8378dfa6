"""`python -m anyclaude.supervisor`."""

import sys

from anyclaude.supervisor.main import main

sys.exit(main())
