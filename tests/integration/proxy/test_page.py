"""The status page: what it shows in a real browser, and who may read and switch."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from anyclaude.cache.v1 import cache_pb2
from anyclaude.control.v1 import control_pb2
from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.worker.v1 import worker_pb2
from tests.integration.cli.scripted_control import ScriptedControl
from tests.integration.frontend_process import FrontendProcess
from tests.integration.proxy.browser import Browser

_TOKEN = "open-sesame"
_PAGE = {"accept": "text/html"}


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(_TOKEN)
    return file


@pytest.fixture(scope="module")
def transcripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Front ends find Claude Code's transcript of one session."""
    folder = tmp_path_factory.mktemp("claude")
    file = folder / "projects/-home-me-shop/session-one.jsonl"
    file.parent.mkdir(parents=True)
    words = "Sort the orders by date"
    line = {"type": "user", "message": {"content": words}, "cwd": "/home/me/shop"}
    file.write_text(json.dumps(line))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAUDE_CONFIG_DIR", str(folder))
        yield


@pytest.fixture(scope="module")
def front(token_file: Path, transcripts: None) -> Iterator[FrontendProcess]:
    """A front end with a token, and a scripted daemon behind it."""
    with FrontendProcess(auth_token_file=str(token_file)) as process, _played(process) as control:
        process.control = control  # type: ignore[attr-defined]
        yield process


@contextlib.contextmanager
def _played(process: FrontendProcess) -> Iterator[ScriptedControl]:
    control = ScriptedControl(process.paths.control_socket)
    _play(control)
    yield control
    control.close()


def _play(control: ScriptedControl) -> None:
    usage = worker_pb2.Usage(input_tokens=90, cache_read_tokens=18_300, cache_creation_tokens=100)
    record = frontend_pb2.RequestRecord(mode="mlx-lm", usage=usage)
    record.identity.session_id = "session-one"
    record.time_to_first_token.FromMilliseconds(310)
    record.start_time.FromJsonString("2026-01-06T14:30:00Z")
    running = frontend_pb2.RunningRequest(prefilled_tokens=7_400, prompt_tokens=18_490)
    running.record.mode = "mlx-lm"
    running.record.identity.session_id = "session-one"
    status = control_pb2.Status(
        readiness=control_pb2.READINESS_READY, mode="mlx-lm", version="1", requests=[running]
    )
    status.memory.cache_bytes = 1_500_000_000
    status.memory.cache_limit_bytes = 8_000_000_000
    status.memory.weights_bytes = 17_200_000_000
    status.memory.available_bytes = 21_000_000_000
    status.model.id = "Qwen3-Coder-30B-A3B-Instruct-4bit"
    modes = [
        control_pb2.Mode(name="mlx-lm", ready=True),
        control_pb2.Mode(name="lmstudio", ready=True),
        control_pb2.Mode(name="claude", ready=True, is_remote=True),
    ]
    # Two conversations behind a shared prefix, one of them of two segments.
    segments = [
        cache_pb2.CacheSegment(
            name="a", label="tools & <b>skills", tokens=18_300, bytes=1_700_000_000
        ),
        cache_pb2.CacheSegment(name="b", parent="a", tokens=100, bytes=9_800_000),
        cache_pb2.CacheSegment(
            name="c", parent="b", tokens=90, lineages=["lineages/session-one/main/1"]
        ),
        cache_pb2.CacheSegment(
            name="d", parent="a", tokens=70, lineages=["lineages/session-two/main/1"]
        ),
    ]
    control.answers |= {
        "GetStatus": control_pb2.GetStatusResponse(status=status),
        "GetMode": control_pb2.GetModeResponse(mode="mlx-lm", modes=modes),
        "ListRequests": control_pb2.ListRequestsResponse(records=[record], running=[running]),
        "GetCacheTree": cache_pb2.GetCacheTreeResponse(segments=segments),
        "SetMode": control_pb2.SetModeResponse(mode="lmstudio", previous_mode="mlx-lm"),
    }


@pytest.fixture
def http(front: FrontendProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=front.base_url, timeout=60, trust_env=False) as client:
        yield client


def test_the_page_in_a_browser(front: FrontendProcess) -> None:
    """With the token it shows bars, progress, labels as text and memory, and switches the mode."""
    with Browser(front.base_url + "/") as browser:
        browser.wait_for("document.getElementById('login')?.hidden === false")
        browser.evaluate("document.getElementById('token').value = 'open-sesame'")
        browser.evaluate("document.getElementById('login').requestSubmit()")
        browser.wait_for("document.querySelector('#sessions .row') !== null")
        text = browser.evaluate("document.body.innerText")
        widths = browser.evaluate(
            "[...document.querySelectorAll('#sessions i')].map(i => parseFloat(i.style.width))"
        )
        rows = browser.evaluate(
            "[...document.querySelectorAll('#caches tr')].slice(1)"
            ".map(row => [...row.children].map(cell => cell.textContent).join('|'))"
        )
        picture = browser.screenshot()
        fits = browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        browser.resize(900, 860)
        wide = browser.screenshot()
        browser.evaluate(
            "[...document.querySelectorAll('#modes button')]"
            ".find(button => button.textContent === 'lmstudio').click()"
        )
        browser.wait_for("document.getElementById('switched').textContent")
        switched = browser.evaluate("document.getElementById('switched').textContent")

    if folder := os.environ.get("ANYCLAUDE_TEST_PICTURES"):
        # How those in docs/ are made.
        (Path(folder) / "status-page-phone.png").write_bytes(picture)
        (Path(folder) / "status-page.png").write_bytes(wide)
    assert picture.startswith(b"\x89PNG")
    assert "ready; mode mlx-lm" in text
    assert "18,300 reused, 190 computed, 1 request\n" in text
    assert "prompt 7,400 of 18,490 (40 %)" in text
    assert "1.5 GB of 8.0 GB" in text
    assert rows == [
        "tools & <b>skills|18,300|1700.0 MB|0",
        "\u2003shop: Sort the orders by date|190|9.8 MB|0",
        "\u2003lineages/session-two/main/1|70|0.0 MB|0",
    ]
    assert "Tue, 14:00\t1\t0.31 s\t0\t-" in text
    # The sessions, the running request and the cache of the conversation.
    assert text.count("shop: Sort the orders by date") == 3
    assert "claude (leaves this machine)" in text
    assert widths == pytest.approx([98.97, 1.03], abs=0.01)
    assert fits
    assert switched == "The mode is lmstudio from the next request on."
    control: ScriptedControl = front.control  # type: ignore[attr-defined]
    assert [call.mode for call in control.requests("SetMode")] == ["lmstudio"]


def test_the_page_needs_nothing_from_elsewhere(http: httpx.Client) -> None:
    """It names no other address, and its policy forbids the browser to load any."""
    page = http.get("/", headers=_PAGE)

    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "src=" not in page.text


def test_data_and_switch_need_the_token(http: httpx.Client) -> None:
    """Without it both answer 401; a page of another site is refused even with it."""
    own = {"authorization": f"Bearer {_TOKEN}"}
    foreign = own | {"origin": "https://evil.example"}

    assert http.get("/status.json").status_code == 401
    assert http.post("/mode", json={"mode": "claude"}).status_code == 401
    assert http.post("/mode", json={"mode": "claude"}, headers=foreign).status_code == 403
    assert http.post("/mode", json={"mood": "x"}, headers=own).status_code == 400
    assert http.get("/status.json", headers=own).json()["can_switch"] is True


def test_no_switch_without_a_token(transcripts: None) -> None:
    """A service without a token lets no page switch, and shows anyone a project but no words."""
    with FrontendProcess() as open_front:
        answer = httpx.post(open_front.base_url + "/mode", json={"mode": "claude"}, timeout=60)
        unreachable = httpx.get(open_front.base_url + "/status.json", timeout=60)
        with _played(open_front):
            shown = httpx.get(open_front.base_url + "/status.json", timeout=60).json()

    assert answer.status_code == 403
    assert "server.auth_token_file" in answer.json()["error"]["message"]
    # There is no daemon behind this one.
    assert unreachable.status_code == 503
    assert shown["titles"] == {"session-one": "shop session-"}
