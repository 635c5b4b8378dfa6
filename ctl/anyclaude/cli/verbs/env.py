"""`anyclaudectl env`: the environment variables that point Claude Code at this service."""

import os
import shlex

from anyclaude.cli.command import connect
from anyclaude.cli.output import Json, emit


def env(json: Json = False) -> None:
    """Print the environment for Claude Code. Use: eval "$(anyclaudectl env)"."""
    from anyclaude.cli.bundle import Endpoint, contradicting, environment_for

    with connect() as client:
        endpoint = Endpoint.of(client, os.environ)
    bundle = environment_for(endpoint, os.environ)
    surplus = sorted(contradicting(endpoint) - bundle.keys())
    if json:
        emit({"env": bundle, "unset": surplus})
        return
    for name in surplus:
        print(f"unset {name}")
    for name, value in bundle.items():
        print(f"export {name}={shlex.quote(value)}")
