"""`anyclauded` with scripted children: daemon.py STATE_FILE "BEHAVIOUR [ARGUMENT]" [FLAG...]."""

import sys
from pathlib import Path

import anyclaude.runtime.cheap_start  # noqa: F401 - before all other imports
from anyclaude.supervisor.children import ChildSpec, Role
from anyclaude.supervisor.main import main

CHILD = str(Path(__file__).with_name("child.py"))


def children(state_file: str, behaviour: str) -> list[ChildSpec]:
    frontend = (sys.executable, CHILD, "frontend", state_file)
    worker = (sys.executable, CHILD, "worker", *behaviour.split())
    return [
        ChildSpec("frontend", Role.FRONTEND, frontend),
        ChildSpec("mlx", Role.WORKER, worker),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[3:], children(*sys.argv[1:3])))
