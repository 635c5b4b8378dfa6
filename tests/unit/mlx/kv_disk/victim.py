"""A process that is killed at a given step of writing, for the crash tests.

Usage: python -m tests.unit.mlx.kv_disk.victim FOLDER POINT SCENARIO
"""

import os
import signal
import sys
from pathlib import Path

from anyclaude.mlx.kv_disk import Point
from tests.unit.mlx.kv_disk import records as disk


def main() -> None:
    folder, point, scenario = Path(sys.argv[1]), Point[sys.argv[2]], sys.argv[3]
    armed = False

    def reach(reached: Point) -> None:
        if armed and reached is point:
            os.kill(os.getpid(), signal.SIGKILL)

    with disk.tier(folder, failpoint=reach, budget_bytes=disk.budget_of(scenario)) as tier:
        armed = True
        disk.act(tier, scenario)
        tier.flush(20)
    print("survived")


if __name__ == "__main__":
    main()
