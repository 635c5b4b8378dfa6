"""`anyclaudectl model list|pull|recommend` against a hub on loopback, and `model use`."""

import json
import random
from collections.abc import Iterator

import pytest

from anyclaude.cli.recommended import fitting
from tests.integration.cli.conftest import Commands
from tests.integration.cli.hub_server import HubServer

_NAME = "someone/tiny"
_WEIGHTS = random.Random(1).randbytes(300_000)
_FILES = {
    "config.json": b'{"model_type": "qwen3", "max_position_embeddings": 40960}',
    "chat_template.jinja": b"{% for tool in tools %}{{ tool }}{% endfor %}",
    "code.py": b"print('never fetched')",
    "model.safetensors": _WEIGHTS,
}


@pytest.fixture
def hub(commands: Commands) -> Iterator[HubServer]:
    with HubServer(_NAME, _FILES) as server:
        commands.environ["HF_ENDPOINT"] = server.address
        commands.environ["HF_HOME"] = str(commands.home / "hub")
        commands.environ.pop("HF_HUB_OFFLINE", None)
        yield server


def _ctl(commands: Commands, *arguments: str):
    # The hub's library reads its variables when it is imported, so each run is a process.
    return commands.run("anyclaude.cli", "model", *arguments)


def test_a_pulled_model_is_listed(commands: Commands, hub: HubServer) -> None:
    """The files arrive, code stays away, and the list has size, window and state."""
    assert _ctl(commands, "list").stdout == ""
    done = _ctl(commands, "pull", _NAME, "--yes")
    listed = json.loads(_ctl(commands, "list", "--json").stdout)["models"]

    assert done.returncode == 0, done.stderr
    assert f"anyclaudectl model use {_NAME}" in done.stdout
    (model,) = listed
    assert (model["name"], model["window_tokens"], model["state"]) == (_NAME, 40_960, "ok")
    assert model["nbytes"] == len(_WEIGHTS)
    assert not {name for name, _ in hub.starts} & {"code.py"}


def test_an_interrupted_download_goes_on(commands: Commands, hub: HubServer) -> None:
    """After a download that broke off, the next run fetches only the file that is missing."""
    hub.cut_off = "model.safetensors"
    broken = _ctl(commands, "pull", _NAME, "--yes")
    hub.cut_off = ""
    hub.starts.clear()
    done = _ctl(commands, "pull", _NAME, "--yes")

    assert broken.returncode == 1
    assert "files that have arrived are kept" in broken.stderr
    assert done.returncode == 0, done.stderr
    assert hub.starts == [("model.safetensors", 0)]


def test_a_corrupt_file_is_refused(commands: Commands, hub: HubServer) -> None:
    """A file of the right size and with a wrong byte is removed, and fetched by the next run."""
    hub.corrupt["model.safetensors"] = b"x" + _WEIGHTS[1:]
    refused = _ctl(commands, "pull", _NAME, "--yes")
    hub.corrupt.clear()
    done = _ctl(commands, "pull", _NAME, "--yes")

    assert refused.returncode == 1
    assert "model.safetensors: removed" in refused.stderr
    assert done.returncode == 0, done.stderr


def test_nothing_is_downloaded_unasked(commands: Commands, hub: HubServer) -> None:
    """Without --yes and without a person at a terminal, no file is fetched."""
    done = _ctl(commands, "pull", _NAME)

    assert done.returncode == 1
    assert hub.starts == []


def test_an_unknown_model_is_refused(commands: Commands, hub: HubServer) -> None:
    """A name that is no hub id exits with 1 and a sentence."""
    done = _ctl(commands, "pull", "a/b/c", "--yes")
    assert done.returncode == 1
    assert "a/b/c was not downloaded" in done.stderr


@pytest.mark.parametrize(("gigabytes", "largest"), [(16, "Qwen3-4B"), (32, "Qwen3-Coder-30B")])
def test_recommended_models_fit(gigabytes: int, largest: str) -> None:
    """The largest model that fits is named first, and none that needs more."""
    found = list(fitting(gigabytes * 10**9))
    assert largest in found[0].name
    assert all(model.needed_bytes < 0.75 * gigabytes * 10**9 for model in found)
    assert list(fitting(8 * 10**9)) == []
