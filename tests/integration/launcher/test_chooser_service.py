"""`anyclaude` on a terminal with a whole service: the menu shows what the daemon measured."""

import json
import re
import sys
from pathlib import Path

from tests.integration.conversation import body
from tests.integration.service import Service
from tests.models.requests import user
from tests.terminal_process import TerminalProcess

_FAKE_CLAUDE = f"""#!{sys.executable}
import json, sys
settings = json.load(open(sys.argv[sys.argv.index("--settings") + 1]))
print("CLAUDE", settings["env"]["ANTHROPIC_MODEL"])
"""
_PROMPT = "q to leave]: "
_IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
}


def test_the_page_shows_what_was_measured() -> None:
    """After the first response the menu shows speed and caches, and images are remembered."""
    with Service(LMSTUDIO_URL="http://127.0.0.1:9") as service:
        service.ready()
        program = service.home / "bin" / "claude"
        program.parent.mkdir()
        program.write_text(_FAKE_CLAUDE)
        program.chmod(0o755)
        environ = service.environ | {"PATH": str(program.parent)}
        command = [sys.executable, "-m", "anyclaude.launcher"]

        with TerminalProcess(command, environ, service.home) as terminal:
            before = terminal.wait_for(_PROMPT)
        with service.http() as http:
            told = http.post("/v1/messages", json=body(user("Tell me of this."), stream=True))
            seen = http.post("/v1/messages", json=body(user(_IMAGE)))
        with TerminalProcess(command, environ, service.home) as terminal:
            after = terminal.wait_for(_PROMPT)
            terminal.type("\n")
            advice = terminal.wait_for(_PROMPT)
            terminal.type("1\n")
            code, rest = terminal.wait_end()
            remembered = json.loads(service.paths.chooser_file.read_text())
        own = service.control("mode", "--json").json["modes"][0]

    assert (told.status_code, seen.status_code) == (200, 200)
    assert "first token" not in before
    assert "lmstudio: not ready. " in before
    analysis = after.split("2. Edit")[0]
    assert "mlx-lm: anyclaude-demo, " in analysis
    assert "first token cold" in analysis
    assert re.search("[0-2] conversations? kept", analysis)
    assert "contained images, which its model does not accept" in advice
    assert (code, "CLAUDE anyclaude-demo" in rest) == (0, True), rest
    assert remembered == {"workflow": "analysis"}
    assert own["speed"]["requests"] == 2
    assert own["speed"]["cold_time_to_first_token"] > 0


def test_what_was_measured_outlives_the_daemon(tmp_path: Path) -> None:
    """After a restart the speed is known before any request."""
    with Service(home=tmp_path) as service, service.ready().http() as http:
        http.post("/v1/messages", json=body(user("Tell me of this."), stream=True))
        measured = service.control("mode", "--json").json["modes"][0]["speed"]
        assert service.stop() == 0
    with Service(home=tmp_path) as service:
        service.ready()
        assert service.control("mode", "--json").json["modes"][0]["speed"] == measured
