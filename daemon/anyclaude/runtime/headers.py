"""Headers of ours that a client of the service sends."""

from typing import Final

# The mode that answers this request; without it the mode of the service does.
MODE_HEADER: Final = "x-anyclaude-mode"
# The launch of `anyclaude` that the request belongs to, so that its summary can be told from that
# of other launches. One launch may have several sessions: `/clear` begins a new one.
LAUNCH_HEADER: Final = "x-anyclaude-launch"
