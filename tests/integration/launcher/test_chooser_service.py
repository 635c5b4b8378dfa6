"""`anyclaude` on a terminal with a whole service: the menu shows what the daemon measured."""

import json
import re
import sys
from pathlib import Path

from tests.integration.conversation import body, instructions
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
        environ = _put_claude(service, _FAKE_CLAUDE)
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


# It sends the same question twice, with the headers that its settings ask for.
_ASKING_CLAUDE = f"""#!{sys.executable}
import json, sys, urllib.request
environ = json.load(open(sys.argv[sys.argv.index("--settings") + 1]))["env"]
headers = dict(line.split(": ") for line in environ["ANTHROPIC_CUSTOM_HEADERS"].splitlines())
headers["x-claude-code-session-id"] = "the-session"
for _ in range(2):
    request = urllib.request.Request(
        environ["ANTHROPIC_BASE_URL"] + "/v1/messages",
        {json.dumps(body(user("Tell me of this."), system=instructions("A launch")))!r}.encode(),
        {{"content-type": "application/json", **headers}},
    )
    urllib.request.urlopen(request).read()
"""


def _put_claude(service: Service, text: str) -> dict[str, str]:
    """Installs `claude`; returns the environment in which it is found."""
    program = service.home / "bin" / "claude"
    program.parent.mkdir(exist_ok=True)
    program.write_text(text)
    program.chmod(0o755)
    return service.environ | {"PATH": str(program.parent)}


def test_what_was_measured_outlives_the_daemon(tmp_path: Path) -> None:
    """A launch ends with its figures; they, its requests and the speed are known after a restart.

    A request of another client is not part of the launch.
    """
    with Service(home=tmp_path) as service, service.ready().http() as http:
        http.post("/v1/messages", json=body(user("Tell me of this."), stream=True))
        environ = _put_claude(service, _ASKING_CLAUDE)
        command = [sys.executable, "-m", "anyclaude.launcher", "--no-chooser"]
        with TerminalProcess(command, environ, service.home) as terminal:
            code, seen = terminal.wait_end()
        measured = service.control("mode", "--json").json["modes"][0]["speed"]
        requests = service.control("requests", "--json").json["requests"]
        figures = service.control("metrics", "--session", "the-session", "--json").json
        assert service.stop() == 0
    with Service(home=tmp_path) as service:
        assert service.ready().control("mode", "--json").json["modes"][0]["speed"] == measured
        assert service.control("requests", "--json").json["requests"] == requests
        assert service.control("metrics", "--session", "the-session", "--json").json == figures

    assert (code, len(requests)) == (0, 3), seen
    assert "2 requests, " in seen
    assert "1 of them reused" in seen
    assert figures["requests"] == 2
    assert figures["saved_seconds"] > 0
    assert "Tell me of this" not in (tmp_path / "state" / "requests.jsonl").read_text()
