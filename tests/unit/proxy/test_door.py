"""Who may come in."""

from pathlib import Path

import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.proxy.door import Door, TokenError, read_token

LOCAL = {"host": "127.0.0.1:49152"}


def status(door: Door, headers: dict[str, str], path: str = "/v1/messages") -> int:
    try:
        door.check(path, headers)
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
    """Only this machine's own names are answered: a rebound name gives itself away."""
    assert status(Door(None), {"host": host}) == expected


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
    ],
)
def test_origin(origin: str, expected: int) -> None:
    """Web pages of other origins are not answered."""
    assert status(Door(None), {**LOCAL, "origin": origin}) == expected


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
    """Either form of credential is taken, and nothing else."""
    assert status(Door(b"secret"), {**LOCAL, **headers}) == expected


@pytest.mark.parametrize("path", ["/", "/api/hello", "/health/live", "/health/ready"])
def test_probes_need_no_token(path: str) -> None:
    """Whoever asks whether the service lives has no token yet."""
    assert status(Door(b"secret"), LOCAL, path) == 200


def test_token_file(tmp_path: Path) -> None:
    """The token is the file's content without its line end; no file set means no token."""
    file = tmp_path / "token"
    file.write_text("secret\n")
    assert read_token(str(file)) == b"secret"
    assert read_token("") is None


def test_unusable_token_files_are_refused(tmp_path: Path) -> None:
    """A missing or empty file must not open the door to everybody."""
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for file in (empty, tmp_path / "missing"):
        with pytest.raises(TokenError, match="auth_token_file"):
            read_token(str(file))
