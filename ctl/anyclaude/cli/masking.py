"""Takes names and keys out of a text that a person gives to somebody else."""

import getpass
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_SHORTEST_NAME: Final = 3
# A shorter value, such as "1", would be found everywhere.
_SHORTEST_KEY: Final = 8
_MASK: Final = "***"
_KEY_ENDINGS: Final = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
# What keys look like, wherever they come from: the usual prefixes, headers, addresses, options.
_KEYS: Final = (
    (re.compile(r"\b(sk|hf|ghp|github_pat)[-_][A-Za-z0-9_-]{8,}"), _MASK),
    (re.compile(r"(?i)(bearer|basic) +[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {_MASK}"),
    (re.compile(r"(?i)(x-api-key|authorization)(\W+)[A-Za-z0-9._~+/=-]{8,}"), rf"\1\2{_MASK}"),
    (re.compile(r"(\w://)[^/\s@\"']+@"), rf"\1{_MASK}@"),
    (
        re.compile(r"(?i)(--[\w-]*(?:key|token|secret|password)\b)([\s\"',=]+)[^\s\"',]+"),
        rf"\1\2{_MASK}",
    ),
)


@dataclass(frozen=True)
class Masking:
    """What is masked: the home folder, the user's and the machine's name, and keys."""

    home: str
    user: str
    host: str
    keys: tuple[str, ...] = ()

    @classmethod
    def of_this_machine(cls, environ: Mapping[str, str], *keys: str) -> Self:
        """The names of this machine, the given keys, and those of the environment."""
        named = [value for name, value in environ.items() if name.endswith(_KEY_ENDINGS)]
        long = {key for key in (*keys, *named) if len(key) >= _SHORTEST_KEY}
        home = environ.get("HOME") or str(Path.home())
        return cls(home, getpass.getuser(), platform.node(), tuple(sorted(long)))

    def apply(self, text: str) -> str:
        for key in self.keys:
            text = text.replace(key, _MASK)
        for pattern, replacement in _KEYS:
            text = pattern.sub(replacement, text)
        return self._without_names(text)

    def _without_names(self, text: str) -> str:
        text = text.replace(self.home, "~") if len(self.home) > 1 else text
        # The host comes first, since its name often has the user's in it.
        short = self.host.partition(".")[0]
        for name, word in ((self.host, "HOST"), (short, "HOST"), (self.user, "USER")):
            if len(name) >= _SHORTEST_NAME:
                text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", word, text, flags=re.IGNORECASE)
        return text
