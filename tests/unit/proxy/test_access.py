"""Which requests are served: hosts, origins, tokens, and how many at once."""

from pathlib import Path

import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.messages.turnover import MAX_RETRY_AFTER_SECONDS
from anyclaude.proxy.access import AccessChecks, Admission, TokenError, read_token

LOCAL = {"host": "127.0.0.1:49152"}


def status(checks: AccessChecks, headers: dict[str, str], path: str = "/v1/messages") -> int:
    try:
        checks.check(path, headers)
    except ApiError as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:49152", 200),
        ("localhost:1", 200),
        ("LOCALHOST", 200),
        ("[::1]:8080", 200),
        ("", 403),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:80", 403),
        ("127.0.0.1:80\n", 403),
        ("127.0.0.1@evil.example", 403),
    ],
)
def test_host(host: str, expected: int) -> None:
    """Only names of this machine are served, so a web page that rebinds a name gets nothing."""
    assert status(AccessChecks(None), {"host": host}) == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://127.0.0.1:49152", 200),
        ("https://localhost", 200),
        ("http://[::1]:3000", 200),
        ("null", 403),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("file://localhost", 403),
        ("", 403),
        ("app://obsidian.md", 200),
        ("tauri://localhost", 200),
        ("vscode-webview://1a2b", 200),
        ("capacitor://localhost", 200),
        ("app://", 200),
        ("app://x/evil", 403),
        ("chrome-extension://abc", 403),
        ("xapp://obsidian.md", 403),
    ],
)
def test_origin(origin: str, expected: int) -> None:
    """Web pages of other origins are not answered; the pages of desktop apps are."""
    assert status(AccessChecks(None), {**LOCAL, "origin": origin}) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("host.docker.internal", 200),
        ("host.docker.internal:49152", 200),
        ("HOST.DOCKER.INTERNAL:1", 200),
        ("box.lan:8080", 200),
        ("localhost:1", 200),
        ("x.host.docker.internal", 403),
        ("host.docker.internal.evil.example", 403),
        ("host.docker.internal:80:80", 403),
    ],
)
def test_allowed_hosts(host: str, expected: int) -> None:
    """A name of the settings is served with any port, and no other name that contains it is."""
    checks = AccessChecks(None, hosts=["host.docker.internal", "Box.lan"])
    assert status(checks, {"host": host}) == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://chat.lan", 200),
        ("https://CHAT.lan", 200),
        ("null", 200),
        ("chrome-extension://abc", 200),
        ("http://localhost:3000", 200),
        ("https://chat.lan:81", 403),
        ("https://x.chat.lan", 403),
        ("http://chat.lan", 403),
        ("chrome-extension", 403),
    ],
)
def test_allowed_origins(origin: str, expected: int) -> None:
    """Origins of the settings are served as they are written there, or by their scheme."""
    checks = AccessChecks(None, origins=["https://chat.lan", "null", "chrome-extension://*"])
    assert status(checks, {**LOCAL, "origin": origin}) == expected


@pytest.mark.parametrize(
    ("headers", "setting"),
    [
        ({"host": "host.docker.internal"}, "server.allowed_hosts"),
        ({**LOCAL, "origin": "null"}, "server.allowed_origins"),
    ],
    ids=["host", "origin"],
)
def test_a_refusal_names_the_setting(headers: dict[str, str], setting: str) -> None:
    """Whoever is refused learns which setting lets them in."""
    with pytest.raises(ApiError, match=setting):
        AccessChecks(None).check("/v1/messages", headers)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 401),
        ({"authorization": "Bearer secret"}, 200),
        ({"authorization": "bearer  secret "}, 200),
        ({"x-api-key": "secret"}, 200),
        ({"authorization": "Bearer wrong", "x-api-key": "secret"}, 200),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic secret"}, 401),
        ({"authorization": "secret"}, 401),
        ({"x-api-key": "s\xe9cret"}, 401),
    ],
)
def test_token(headers: dict[str, str], expected: int) -> None:
    """A token is accepted as bearer or as x-api-key, and in no other form."""
    assert status(AccessChecks(b"secret"), {**LOCAL, **headers}) == expected


@pytest.mark.parametrize("path", ["/", "/api/hello", "/health/live", "/health/ready"])
def test_probes_need_no_token(path: str) -> None:
    """Health checks and the client's first probe are served without a token."""
    assert status(AccessChecks(b"secret"), LOCAL, path) == 200


def test_token_file(tmp_path: Path) -> None:
    """The token is the file's content without its line end; no file set means no token."""
    file = tmp_path / "token"
    file.write_text("secret\n")
    assert read_token(str(file)) == b"secret"
    assert read_token("") is None


def test_unusable_token_files_are_refused(tmp_path: Path) -> None:
    """A missing or empty file is an error, and not a service without a token."""
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for file in (empty, tmp_path / "missing"):
        with pytest.raises(TokenError, match="auth_token_file"):
            read_token(str(file))


def test_admission_has_a_maximum() -> None:
    """A request beyond the maximum is refused, and a finished one makes space for the next."""
    admission = Admission(1)
    with admission.slot():
        with pytest.raises(ApiError) as caught, admission.slot():
            pass
        assert caught.value.status == 529
        assert caught.value.retry_after_seconds in range(1, MAX_RETRY_AFTER_SECONDS + 1)
    with admission.slot():
        pass
