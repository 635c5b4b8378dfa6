"""Opens the control client without importing gRPC before a verb needs it."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyclaude.cli.client import ControlClient


def connect() -> "ControlClient":
    """A client of the daemon of this environment.

    Raises:
        CommandError: NOT_RUNNING or TIMEOUT.
    """
    from anyclaude.cli.client import ControlClient
    from anyclaude.runtime.paths import find_paths

    return ControlClient(find_paths(os.environ).control_socket)
