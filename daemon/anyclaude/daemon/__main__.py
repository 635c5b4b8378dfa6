"""`python -m anyclaude.daemon`."""

import sys

from anyclaude.daemon.main import main

sys.exit(main())
