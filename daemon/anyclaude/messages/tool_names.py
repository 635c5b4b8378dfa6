"""Names of tools as models write them: with a namespace or a marker, or in other capitals."""

import re
from collections.abc import Collection
from typing import Final

_AROUND: Final = re.compile(
    r"^[\s\"'`]*((functions?|tools?|default_api)[.:/])?|(:\d+|\(\))?(<\|.*)?[\s\"'`]*$", re.DOTALL
)


def known_name(name: str, known: Collection[str]) -> str:
    """The one of the `known` names that is meant; a name that could mean none or two stays."""
    if name in known:
        return name
    plain = _AROUND.sub("", name)
    alike = [each for each in known if each.lower() == plain.lower()]
    if plain in known:
        return plain
    return alike[0] if len(alike) == 1 else name
