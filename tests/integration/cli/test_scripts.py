"""The scripts of docs/scripts work on a real service."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from anyclaude.mlx.demo import MODEL_PATH
from tests.checkout import ROOT
from tests.integration.mlx_server import MlxServer
from tests.integration.prompts import body, session
from tests.integration.service import Service
from tests.models import saved

SCRIPTS = ROOT / "docs" / "scripts"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = saved.save(Path(tmp_path_factory.mktemp("model")))
    with (
        MlxServer(MODEL_PATH) as server,
        Service(
            model=model, LMSTUDIO_URL=server.base_url, LMSTUDIO_MODEL="default_model"
        ) as started,
    ):
        yield started.ready()


def run(service: Service, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Where `anyclaudectl` is.
    path = f"{Path(sys.executable).parent}{os.pathsep}{service.environ['PATH']}"
    return subprocess.run(
        [str(SCRIPTS / name), *arguments],
        env=service.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def ask(service: Service, name: str) -> int:
    """Sends a request in a new session; returns how many tokens were computed."""
    with httpx.Client(base_url=service.base_url, timeout=60, trust_env=False) as client:
        answer = client.post("/v1/messages", json=body(name), headers=session(name)).json()
    return int(answer["usage"]["cache_read_input_tokens"])


def sessions(service: Service) -> set[str]:
    caches = service.control("cache", "list", "--json").json["caches"]
    return {cache["session_id"] for cache in caches if cache["session_id"]}


def test_nightly_prune(service: Service) -> None:
    """Old conversations are removed; tools and instructions stay for the next one."""
    ask(service, "yesterday")
    assert run(service, "nightly-prune").returncode == 0
    assert sessions(service) == {"yesterday"}
    assert run(service, "nightly-prune", "0s").returncode == 0
    assert sessions(service) == set()
    assert ask(service, "today") > 500
    assert run(service, "nightly-prune", "72h", "0B").returncode == 0
    assert sessions(service) == set()


def test_warm_before_work(service: Service, tmp_path: Path) -> None:
    """The prompt of a file is in memory before the first conversation."""
    service.control("cache", "prune", "--all", "--yes")
    file = tmp_path / "prompt.json"
    file.write_text(json.dumps(body("Good morning.")))
    done = run(service, "warm-before-work", str(file))
    assert done.returncode == 0, done.stderr
    assert ask(service, "morning") > 500
    assert run(service, "warm-before-work").returncode == 2
    assert run(service, "warm-before-work", str(tmp_path / "none.json")).returncode == 4


def test_switch_when_short(service: Service) -> None:
    """With enough memory nothing happens; without it caches are evicted and the mode changes."""
    ask(service, "busy")
    assert run(service, "switch-when-short", "--below", "1").returncode == 0
    assert service.status().mode == "mlx-lm"
    done = run(service, "switch-when-short", "--below", str(1 << 60), "--mode", "lmstudio")
    assert done.returncode == 0, done.stderr
    assert service.status().mode == "lmstudio"
    assert service.control("cache", "list", "--json").json["memory"]["cache_bytes"] == 0
