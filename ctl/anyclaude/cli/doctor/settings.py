"""Checks of the settings and of the variables of this shell."""

import difflib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Final
from urllib.parse import urlsplit

from anyclaude.cli.bundle import NO_PROXY
from anyclaude.cli.doctor.finding import Examined, Finding, ok, problem, warning
from anyclaude.runtime.loading import ENVIRONMENT_NAMES, ENVIRONMENT_PREFIX, Origin, load

_OURS: Final = "ANYCLAUDE_"
# Read where they are needed, not as settings.
_OTHER_VARIABLES: Final = ("ANYCLAUDE_HOME",)
# Of the tests in a checkout.
_TESTS: Final = "ANYCLAUDE_TEST_"
_PROXIES: Final = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_FROM_SHELL: Final = 'eval "$(anyclaudectl env)"'
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def settings(examined: Examined) -> Iterator[Finding]:
    """What the daemon would refuse, asked of the daemon's own program."""
    checked = examined.run([sys.executable, "-m", "anyclaude.supervisor", "--check"])
    file = examined.paths.config_file
    if checked.returncode == 0:
        yield ok(f"{file} is valid." if file.exists() else f"{file} does not exist: defaults.")
        return
    for line in (checked.stderr or checked.stdout).strip().splitlines():
        yield problem(
            line,
            "The daemon does not start with it.",
            "anyclaudectl config set KEY VALUE, or edit the file that `anyclaudectl config path` "
            "prints; then anyclaudectl config check",
        )


def variables(examined: Examined) -> Iterator[Finding]:
    """Variables of this shell that look like ours, and that nothing reads."""
    known = [name for name, _ in ENVIRONMENT_NAMES if name.startswith(_OURS)]
    known += _OTHER_VARIABLES
    for name in sorted(examined.environ):
        if not name.startswith(_OURS) or name in known:
            continue
        # The settings check names unknown keys of the double underscore form.
        if name.startswith((ENVIRONMENT_PREFIX, _TESTS)):
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        meant = f" Did you mean {close[0]}?" if close else ""
        yield warning(f"Nothing reads the variable {name}.{meant}", "", f"unset {name}")


def hidden(examined: Examined) -> Iterator[Finding]:
    """Values of the file that a variable of this shell replaces."""
    if examined.loaded is None:
        return
    file = examined.paths.config_file
    in_file = load(file, {}).origins
    for key, origin in examined.loaded.origins.items():
        if origin == Origin.ENVIRONMENT and key in in_file:
            name = _variable_of(key, examined.environ)
            what = f"{key} in {file} has no effect: {name} sets it too."
            yield warning(what, "", f"unset {name}")


def _variable_of(key: str, environ: Mapping[str, str]) -> str:
    """The variable that sets the key, or the table that the key is in."""
    keys = dict(ENVIRONMENT_NAMES)
    for name in environ:
        tail = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
        sets = keys.get(name) or (tail if name.startswith(ENVIRONMENT_PREFIX) else "")
        if sets and f"{key}.".startswith(f"{sets}."):
            return name
    return "a variable"


def folders(examined: Examined) -> Iterator[Finding]:
    """Folders and files that settings name and that do not exist."""
    settings = examined.settings
    local = settings.model.path.startswith(("/", "~", "."))
    named = {"model.path": settings.model.path if local else ""}
    for name, upstream in settings.upstreams.items():
        named[f"upstreams.{name}.api_key_file"] = upstream.api_key_file
        named[f"upstreams.{name}.ca_file"] = upstream.ca_file
    for key, value in named.items():
        if value and not Path(value).expanduser().exists():
            yield problem(f"{key}: there is no {value}.", "", f"anyclaudectl config set {key} PATH")
    yield from token(examined)


def overridden(examined: Examined) -> Iterator[Finding]:
    """Variables of this shell that the running daemon was started without."""
    if not (examined.running and examined.loaded):
        return
    entries = {key: value for key, value, _ in examined.loaded.entries()}
    theirs = examined.running.settings.model_dump(mode="json")
    for name, key in ENVIRONMENT_NAMES:
        # The mode is chosen while the daemon runs, and port 0 becomes a free one.
        if name not in examined.environ or key in ("mode", "log.level"):
            continue
        if not entries.get(key) or entries[key] == _value(theirs, key):
            continue
        yield warning(
            f"{name} is set in this shell, but the running daemon was started without it.",
            f"{key} is {_value(theirs, key)!r} there.",
            examined.how_to_replace,
        )


def proxy(examined: Examined) -> Iterator[Finding]:
    """Whether a Claude Code that is started without `anyclaude` reaches this service directly."""
    found = [name for name in _PROXIES if examined.environ.get(name)]
    exempt = {
        host.strip() for name in NO_PROXY for host in examined.environ.get(name, "").split(",")
    }
    if found and not {"127.0.0.1", "*"} & exempt:
        yield warning(
            f"{found[0]} is set, and NO_PROXY does not name 127.0.0.1.",
            "`claude` started without `anyclaude` sends its prompts through that proxy.",
            _FROM_SHELL,
        )


def address(examined: Examined) -> Iterator[Finding]:
    """Whether this shell sends Claude Code to another place than this service."""
    given = examined.environ.get("ANTHROPIC_BASE_URL", "")
    if not given or examined.running is None:
        return
    ours, named = urlsplit(examined.running.status.base_url), urlsplit(given)
    is_ours = named.port == ours.port and named.hostname in _LOOPBACK
    if not is_ours:
        yield warning(
            f"ANTHROPIC_BASE_URL is {given} in this shell; the service is at {ours.geturl()}.",
            "`claude` started without `anyclaude` does not use this service.",
            _FROM_SHELL,
        )


def token(examined: Examined) -> Iterator[Finding]:
    """Whether the token of the endpoint can be read."""
    name = examined.settings.server.auth_token_file
    if name and not Path(name).expanduser().is_file():
        yield problem(
            f"The token file {name} (server.auth_token_file) does not exist.",
            "The daemon cannot check requests, and `anyclaude` cannot send the token.",
            f"(umask 077; head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n' > {quote(name)})",
        )


def _value(tree: object, key: str) -> object:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree
