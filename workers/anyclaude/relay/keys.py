"""The key of one server: found where the settings say, read when needed, never kept in a log."""

from pathlib import Path

from anyclaude.messages.errors import ApiError
from anyclaude.runtime.upstreams import UpstreamSettings


class Key:
    def __init__(self, name: str, settings: UpstreamSettings, variable_value: str) -> None:
        self._name = name
        self._file = settings.api_key_file
        self._value = variable_value

    def read(self) -> str:
        """The key, empty when none is configured; a file is read anew, so that it can be replaced.

        Raises:
            ApiError: 401, the file cannot be used.
        """
        if not self._file:
            return self._value
        try:
            key = Path(self._file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise ApiError(
                401, f"upstreams.{self._name}.api_key_file = {self._file} cannot be read: {why}."
            ) from None
        if not key:
            raise ApiError(401, f"upstreams.{self._name}.api_key_file = {self._file} is empty.")
        return key

    @property
    def is_set(self) -> bool:
        return bool(self._file or self._value)
