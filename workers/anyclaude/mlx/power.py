"""Whether this machine runs on its battery."""

from collections.abc import Callable
from typing import Any

import psutil


def _battery() -> Any:
    return psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None


def on_battery(read: Callable[[], Any] = _battery) -> bool:
    """False on mains power, without a battery, and where the platform does not say."""
    try:
        battery = read()
    except (OSError, RuntimeError):
        return False
    return battery is not None and battery.power_plugged is False
