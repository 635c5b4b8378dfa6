"""Applies changed settings while the daemon runs: `anyclaudectl reload`, and SIGHUP.

The settings are read again from the file, the environment and the flags that the daemon started
with, and checked as at a start: settings that cannot be used change nothing. A key of a child's
section takes effect by a restart of that child; the others keep running. Keys that only a new
daemon can apply keep their old value, and are reported.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from anyclaude.runtime import loading, logs
from anyclaude.runtime.loading import LoadedSettings
from anyclaude.supervisor import modes
from anyclaude.supervisor.child import SupervisedChild
from anyclaude.supervisor.children import Role
from anyclaude.supervisor.daemon import Daemon
from anyclaude.supervisor.modes import CACHE_WORKER, RELAY
from anyclaude.supervisor.supervisor import State

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_FRONTEND: Final = "frontend"
# Which children read a section. A key that is not below one of these needs a new daemon.
_READERS: Final[Mapping[str, tuple[str, ...]]] = {
    "model": (CACHE_WORKER,),
    "answers": (CACHE_WORKER,),
    "cache": (CACHE_WORKER,),
    "mlx": (CACHE_WORKER,),
    "grammar": (CACHE_WORKER,),
    "documents": (CACHE_WORKER, RELAY),
    "relay": (RELAY,),
    "upstreams": (RELAY, _FRONTEND),
    "server": (_FRONTEND,),
    "auto": (_FRONTEND,),
    "search": (_FRONTEND,),
    "vision": (_FRONTEND,),
    # `anyclaude` asks the daemon for it at each launch.
    "chooser": (),
}
# The daemon itself applies it; children log at the new level from their next start on.
_LOG_LEVEL: Final = "log.level"
# The daemon binds the socket once.
_DAEMON_ONLY: Final = frozenset({"server.host", "server.port"})


class ReloadError(Exception):
    """The settings cannot be applied now; the message says why, and nothing was changed."""


@dataclass(frozen=True)
class Reloaded:
    """What a reload does."""

    # Keys whose new value takes effect.
    changed: list[str]
    # Children that are restarted for it.
    restarted: list[str]
    # Keys whose new value needs a new daemon.
    pending: list[str]


def apply(daemon: Daemon, *, trial: bool = False) -> Reloaded:
    """Applies what has changed since the last time; with `trial` only says what it would do.

    Raises:
        ReloadError: the settings are invalid, they lack the current mode, or the mode is being
            changed.
    """
    old, new = daemon.configuration.loaded, _read(daemon)
    keys = _different(old, new)
    pending = [key for key in keys if _needs_daemon(key) or _is_command(key, old, new)]
    changed = [key for key in keys if key not in pending]
    effective = loading.keep(new, old, pending)
    _check(daemon, effective)
    result = Reloaded(changed, _to_restart(daemon, changed), pending)
    if not trial and changed:
        _replace(daemon, effective, result)
    return result


def _read(daemon: Daemon) -> LoadedSettings:
    try:
        return daemon.read_settings()
    except loading.SettingsError as error:
        raise ReloadError(str(error)) from None


def _different(old: LoadedSettings, new: LoadedSettings) -> list[str]:
    before, after = (loading.flatten(each.settings.model_dump()) for each in (old, new))
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def _check(daemon: Daemon, loaded: LoadedSettings) -> None:
    current = daemon.mode.get().name
    try:
        modes.servable(modes.checked_catalog(loaded.settings), current)
    except (modes.UnknownModeError, modes.ModeMissingError) as error:
        raise ReloadError(f"{error} The current mode is {current}.") from None
    for child in daemon.children:
        if child.pause is not None and not child.pause.is_complete:
            raise ReloadError("The mode is being changed just now. Try again in a moment.")


def _to_restart(daemon: Daemon, keys: Iterable[str]) -> list[str]:
    """The children that read `keys`; one that is stopped for a mode reads them when it starts."""
    readers = {name for key in keys for name in _READERS.get(_section(key), ())}
    servers = {key.split(".")[1] for key in keys if _section(key) == "upstreams"}
    return [
        each.name
        for each in daemon.children
        if (each.name in readers and each.pause is None)
        or (each.name in servers and _runs_server(each))
    ]


def _runs_server(child: SupervisedChild) -> bool:
    return child.spec.role is Role.SERVER and child.state is not State.STOPPED


def _replace(daemon: Daemon, loaded: LoadedSettings, result: Reloaded) -> None:
    daemon.configuration.replace(loaded)
    daemon.mode.refresh(daemon.modes)
    if _LOG_LEVEL in result.changed:
        logs.set_level(loaded.settings.log.level)
    for name in result.restarted:
        daemon.children.restart(name)
    daemon.changes.notify()
    _log.info("settings reloaded", keys=result.changed, restarted=result.restarted)


def _needs_daemon(key: str) -> bool:
    if key == _LOG_LEVEL:
        return False
    return key in _DAEMON_ONLY or _section(key) not in _READERS


def _is_command(key: str, old: LoadedSettings, new: LoadedSettings) -> bool:
    """Whether the service begins or ends to run a server itself, or runs another command."""
    _, _, rest = key.partition("upstreams.")
    name, _, field = rest.rpartition(".")
    tables = [each.settings.upstreams.get(name) for each in (old, new)]
    return field == "command" and any(table is not None and table.command for table in tables)


def _section(key: str) -> str:
    return key.partition(".")[0]
