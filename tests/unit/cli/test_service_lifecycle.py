"""What `service install` tells the service manager about the shell."""

from pathlib import Path

import pytest

from anyclaude.cli.service.lifecycle import find_program
from anyclaude.runtime.paths import find_paths


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "anyclauded").touch()
    return folder


def test_the_service_keeps_the_shells_certificates(scripts: Path) -> None:
    """A private CA that is trusted in the shell is trusted by the service; keys stay out."""
    trusted = {"SSL_CERT_FILE": "/ca.pem", "SSL_CERT_DIR": "/certs"}
    environ = trusted | {"ANTHROPIC_API_KEY": "sk-real"}

    program = find_program(scripts, find_paths({"ANYCLAUDE_HOME": "/x"}), environ)

    assert {**program.environment} == {**program.environment, **trusted}
    assert "sk-real" not in str(program)
