"""The relay's environment: the key of each server, and the forward proxy to it.

For the proxy, `upstreams.NAME.proxy` comes first, then `HTTPS_PROXY` or `HTTP_PROXY` by the
server's scheme, then `ALL_PROXY`, each in lower case first. `NO_PROXY` exempts servers from the
variables. A server on loopback never has a proxy, so requests to it stay on this machine.
"""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from anyclaude.messages.errors import ApiError
from anyclaude.runtime.upstreams import NO_PROXY, UpstreamSettings


class Key:
    """The key of one server. It is read when needed, and never logged."""

    def __init__(self, name: str, settings: UpstreamSettings, variable_value: str) -> None:
        self._name = name
        self._file = settings.api_key_file
        self._value = variable_value

    def read(self) -> str:
        """The key; empty if none is configured. A key file is read each time: it may be replaced.

        Raises:
            ApiError: 401, the key file cannot be used.
        """
        if not self._file:
            return self._value
        try:
            key = Path(self._file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise ApiError(
                401, f"upstreams.{self._name}.api_key_file = {self._file} cannot be read: {why}."
            ) from None
        if not key:
            raise ApiError(401, f"upstreams.{self._name}.api_key_file = {self._file} is empty.")
        return key

    @property
    def is_set(self) -> bool:
        return bool(self._file or self._value)


def find_proxy(settings: UpstreamSettings, environ: Mapping[str, str]) -> str:
    """The proxy's URL with its credentials; empty for a direct connection."""
    if settings.is_loopback or settings.proxy == NO_PROXY:
        return ""
    if settings.proxy:
        return settings.proxy
    server = urlsplit(settings.base_url)
    url = _variable(environ, f"{server.scheme}_proxy") or _variable(environ, "all_proxy")
    if not url or _is_exempt(server.hostname or "", _variable(environ, "no_proxy")):
        return ""
    return url if "://" in url else f"http://{url}"


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _is_exempt(host: str, listed: str) -> bool:
    """Whether `NO_PROXY` lists a host: by name, parent domain, address or network, or by `*`."""
    entries = (entry.strip().lower() for entry in listed.split(","))
    return any(entry == "*" or _covers(entry, host) for entry in entries if entry)


def _covers(entry: str, host: str) -> bool:
    try:
        return ip_address(host) in ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        domain = entry.removeprefix("*").removeprefix(".")
        return host == domain or host.endswith(f".{domain}")
