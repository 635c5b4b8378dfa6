"""The effective settings and the modes that follow from them; a reload replaces both."""

from anyclaude.runtime.loading import LoadedSettings
from anyclaude.runtime.settings import Settings
from anyclaude.supervisor.modes import Mode, Modes, catalog


class Configuration:
    """What every part of the daemon reads."""

    def __init__(self, loaded: LoadedSettings) -> None:
        self._loaded = loaded
        # One mapping for the daemon's life, since parts of it keep it.
        self._modes: dict[str, Mode] = dict(catalog(loaded.settings))

    @property
    def loaded(self) -> LoadedSettings:
        return self._loaded

    @property
    def settings(self) -> Settings:
        return self._loaded.settings

    @property
    def modes(self) -> Modes:
        return self._modes

    def replace(self, loaded: LoadedSettings) -> None:
        self._loaded = loaded
        self._modes.clear()
        self._modes.update(catalog(loaded.settings))
