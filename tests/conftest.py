"""Settings of the whole suite."""

import os

from hypothesis import settings

# A build is judged on its change, not on the luck of a draw; at a desk new examples are wanted.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "desk")
