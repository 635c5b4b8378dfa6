"""What one launch of Claude Code asked, reused and saved, printed when it has ended."""

import sys
from pathlib import Path

from anyclaude.cli.client import ControlClient
from anyclaude.cli.command import CommandError
from anyclaude.cli.session import metrics_of


def show_summary(control_socket: Path, launch_id: str) -> None:
    """Prints the figures of that launch; nothing if no request of it was answered."""
    try:
        with ControlClient(control_socket) as client:
            found = metrics_of(client.requests_of(launch_id=launch_id))
    except CommandError as error:
        # Claude Code has ended well; only its figures are missing.
        print(f"anyclaude: no summary of this session. {error.message}", file=sys.stderr)
        return
    if found.requests:
        print("\n".join(["anyclaude:", *found.sentences()]), file=sys.stderr)
