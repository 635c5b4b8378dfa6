"""`anyclauded`: the daemon, in the foreground.

Exit codes: 0 stopped on request, or with --check the settings can be used; 1 another daemon runs,
the port is in use, a folder is not ours, or a stop was forced; 2 usage; 78 the settings cannot be
used.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Before anything that imports grpc: it sets how grpc behaves when we spawn.
import anyclaude.runtime.channels  # noqa: F401
from anyclaude.runtime import logs
from anyclaude.runtime.child import ExitCode
from anyclaude.runtime.loading import LoadedSettings, SettingsError, load
from anyclaude.runtime.paths import Paths, UnsafeFolderError, find_paths
from anyclaude.supervisor import lifecycle, listener, modes
from anyclaude.supervisor.children import DEFAULT_CHILDREN, ChildSpec
from anyclaude.supervisor.daemon import VERSION
from anyclaude.supervisor.descriptors import raise_limit
from anyclaude.supervisor.lock import AlreadyRunningError, daemon_lock

_CANNOT_RUN = (AlreadyRunningError, listener.PortTakenError, UnsafeFolderError, OSError)
_BAD_CONFIG = (SettingsError, modes.UnknownModeError, modes.ModeMissingError)


def main(
    argv: Sequence[str] | None = None, children: Sequence[ChildSpec] = DEFAULT_CHILDREN
) -> int:
    """Runs the daemon; returns its exit code."""
    arguments = _parse(argv)
    with ExitStack() as resources:
        try:
            settled = _settle(arguments, os.environ)
            if arguments.check:
                return ExitCode.OK
            start = _prepare(settled, children, os.environ, resources)
        except _BAD_CONFIG as error:
            print(error, file=sys.stderr)
            return ExitCode.CONFIG
        except _CANNOT_RUN as error:
            print(error, file=sys.stderr)
            return ExitCode.FAILED
        return lifecycle.run(start)


@dataclass(frozen=True)
class _Settled:
    """What settings, flags and files say."""

    paths: Paths
    loaded: LoadedSettings
    # Reads them again, from the same places.
    read: Callable[[], LoadedSettings]
    mode: modes.Mode


def _settle(arguments: argparse.Namespace, environ: Mapping[str, str]) -> _Settled:
    """Reads the settings and the mode; changes nothing."""
    paths = find_paths(environ)
    read = partial(load, _config_file(arguments, paths), environ, _flags(arguments))
    loaded = read()
    logs.configure(loaded.settings.log.level)
    return _Settled(paths, loaded, read, modes.initial(loaded, paths.mode_file))


def _prepare(
    settled: _Settled,
    children: Sequence[ChildSpec],
    environ: Mapping[str, str],
    resources: ExitStack,
) -> lifecycle.Start:
    """Opens the lock, the socket and the log; `resources` closes them."""
    paths, loaded = settled.paths, settled.loaded
    raise_limit(loaded.settings.supervisor.descriptors)
    paths.create()
    resources.enter_context(daemon_lock(paths.lock_file))
    http = resources.enter_context(listener.listen(loaded.settings.server))
    resources.enter_context(logs.to_file(paths.log_file, loaded.settings.log))
    return lifecycle.Start(loaded, settled.read, paths, settled.mode, http, children, environ)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="anyclauded",
        description="Answers Claude Code with local models. Runs in the foreground.",
    )
    parser.add_argument("--port", type=int, help="port of the HTTP endpoint; 0 takes a free one")
    parser.add_argument("--model", help="a model folder, or a hub id in the local hub cache")
    parser.add_argument("--mode", help="the mode to start in, e.g. mlx-lm")
    parser.add_argument("--config", type=Path, metavar="FILE", help="instead of the usual file")
    parser.add_argument("--check", action="store_true", help="check the settings and end")
    parser.add_argument("--log-level", help="debug, info, warning or error")
    parser.add_argument("--version", action="version", version=f"anyclauded {VERSION}")
    return parser.parse_args(argv)


def _config_file(arguments: argparse.Namespace, paths: Paths) -> Path:
    """The default file may be missing; a file named by `--config` may not."""
    chosen: Path | None = arguments.config
    if chosen is None:
        return paths.config_file
    if not chosen.exists():
        raise SettingsError(f"{chosen} does not exist. Check the path after --config.")
    return chosen


def _flags(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "server.port": arguments.port,
        "model.path": arguments.model,
        "mode": arguments.mode,
        "log.level": arguments.log_level,
    }
