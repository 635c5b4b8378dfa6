"""What the commands import, and when: `--help` stays fast, borders hold."""

import subprocess
import sys

import pytest

_HEAVY = (
    *("grpc", "google.protobuf", "rich", "httpx", "structlog", "pydantic"),
    "anyclaude.runtime",
)
_SIBLINGS = ("anyclaude.supervisor", "anyclaude.proxy", "anyclaude.mlx", "anyclaude.relay", "mlx")


def _loaded(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["status", "--help"], ["service", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """Help costs typer and no more: no gRPC, no rich, no pydantic, no settings."""
    loaded = _loaded(
        "from anyclaude.cli.main import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit as end: assert end.code == 0"
    )

    assert not [module for module in _HEAVY if module in loaded]


def test_commands_do_not_import_their_siblings() -> None:
    """The whole of ctl and launcher runs on runtime and the protos alone."""
    loaded = _loaded(
        "import importlib, pkgutil, anyclaude.cli, anyclaude.launcher\n"
        "for package in (anyclaude.cli, anyclaude.launcher):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not found.name.endswith('__main__'): importlib.import_module(found.name)"
    )

    assert "anyclaude.cli.verbs.status" in loaded
    assert not [module for module in loaded if module.startswith(_SIBLINGS)]
