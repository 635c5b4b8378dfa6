"""Makes importing transformers cheaper: half a second of CPU time less at each start of a worker.

When it is imported, transformers reads the source of its 3,000 modules of models for the names that
they export. It reads them twice, since its cache holds 128 of their 549 folders, and passes
each of their lines through a Python loop. `install` gives the scanning module a cache for all
folders, and shows the loop only the lines that count. The names that it finds are the same.
"""

import functools
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, Final

_SCANNER: Final = "transformers.utils.import_utils"
_NAMES: Final = "__all__"


def install() -> None:
    """To be called before transformers is imported; later it has no effect."""
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _SCANNER:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        scanner: Any = module
        # Another release of transformers may do without these functions.
        if hasattr(scanner, "create_import_structure_from_path"):
            scan = scanner.create_import_structure_from_path
            scanner.create_import_structure_from_path = functools.cache(
                getattr(scan, "__wrapped__", scan)
            )
        if hasattr(scanner, "fetch__all__"):
            fetch = scanner.fetch__all__
            scanner.fetch__all__ = lambda content: fetch(_from_names(content))


def _from_names(content: str) -> str:
    """The end of a module, from the last line that begins with `__all__`."""
    line = content.rfind(f"\n{_NAMES}") + 1
    return content[line:] if line or content.startswith(_NAMES) else ""
