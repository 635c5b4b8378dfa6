"""Raises the limit of open descriptors, which the children inherit.

Services of launchd start with 256, of which each client, stream and cache file takes some.
"""

import resource
import sys
from typing import Final

import structlog

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# What macOS allows a process at most, whatever its hard limit says (OPEN_MAX).
_MACOS_MOST: Final = 10_240


def raise_limit(wanted: int) -> int:
    """Allows `wanted` descriptors, or as many as the hard limit does; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    most = min(most, _MACOS_MOST) if sys.platform == "darwin" else most
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != resource.RLIM_INFINITY and soft < wanted:
        _log.warning("few descriptors are allowed; raise the hard limit", limit=soft, wanted=wanted)
    return soft
