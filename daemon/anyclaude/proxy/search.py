"""Web searches by the backend of the settings: SearXNG, Brave or Tavily.

The front end asks it, so that searches work with every worker. Without a backend nothing is asked,
and requests go to the workers. Only the query is sent, never a conversation.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import structlog

from anyclaude.messages.websearch import Page, Search
from anyclaude.runtime.settings import SearchBackend, SearchSettings

log = structlog.get_logger("anyclaude.proxy.search")

_MAX_RESPONSE_BYTES: Final = 4 * 1024 * 1024


class SearchError(Exception):
    """The search failed; the message says why, and what the user can do."""


@dataclass(frozen=True)
class _Backend:
    """How one service is asked, and where its response has the pages."""

    url: str
    request: Callable[[str, str, int, str], httpx2.Request]
    # The keys that lead to the list of pages.
    pages: tuple[str, ...]
    excerpt: str
    age: str
    needs_key: bool = True


class SearchClient:
    """Searches with the backend of the settings."""

    def __init__(self, settings: SearchSettings) -> None:
        self._settings = settings
        self._backend = _BACKENDS.get(settings.backend)
        self._client: httpx2.AsyncClient | None = None

    @property
    def is_configured(self) -> bool:
        return self._backend is not None

    async def find(self, search: Search) -> list[Page]:
        """The pages that the backend found and the request admits, best first.

        Raises:
            SearchError: the backend cannot be asked, or does not answer as it should.
        """
        assert self._backend is not None
        if not search.query:
            raise SearchError("The last user message has no words to search for.")
        backend, settings = self._backend, self._settings
        url = (settings.url or backend.url).rstrip("/")
        count = settings.max_results
        request = backend.request(url, _limited(search), count, self._key(backend))
        document = await self._ask(request)
        found = (_page(item, backend) for item in _items(document, backend.pages))
        return [page for page in found if page and search.admits(page)][:count]

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _key(self, backend: _Backend) -> str:
        file = self._settings.api_key_file
        if not file:
            if backend.needs_key:
                raise SearchError(f"search.api_key_file is not set; {self._name} needs a key.")
            return ""
        try:
            return Path(file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise SearchError(f"search.api_key_file = {file} cannot be read: {why}.") from None

    @property
    def _name(self) -> str:
        return self._settings.backend.value

    async def _ask(self, request: httpx2.Request) -> Any:
        if self._client is None:
            # Without the environment: a query for this machine must not pass through a proxy.
            self._client = httpx2.AsyncClient(
                timeout=self._settings.timeout_seconds, trust_env=False
            )
        try:
            response = await self._client.send(request)
        except httpx2.HTTPError as error:
            why = str(error) or type(error).__name__
            raise SearchError(
                f"{self._name} at {request.url.host} does not answer ({why}). Is it running, and "
                "is search.url right?"
            ) from None
        if response.status_code == 403 and self._settings.backend is SearchBackend.SEARXNG:
            raise SearchError(
                "SearXNG refuses to answer in JSON: add `json` to search.formats in its "
                "settings.yml and restart it."
            )
        if not response.is_success or len(response.content) > _MAX_RESPONSE_BYTES:
            raise SearchError(f"{self._name} answered with status {response.status_code}.")
        try:
            return response.json()
        except ValueError:
            raise SearchError(
                f"{self._name} did not answer in JSON; is search.url right?"
            ) from None


def _limited(search: Search) -> str:
    """The query, limited to the domains in the way that search engines read."""
    sites = " OR ".join(f"site:{domain}" for domain in search.allowed_domains)
    return f"{search.query} {sites}".strip()


def _items(document: Any, keys: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    for item in document if isinstance(document, list) else ():
        if isinstance(item, dict):
            yield item


def _page(item: Mapping[str, Any], backend: _Backend) -> Page | None:
    url = _text(item, "url")
    if not url.startswith(("http://", "https://")):
        return None
    title = _text(item, "title") or url
    return Page(title, url, _text(item, backend.excerpt), _text(item, backend.age))


def _text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    return value.strip() if isinstance(value, str) else ""


def _searxng(url: str, query: str, _: int, key: str) -> httpx2.Request:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    params = {"q": query, "format": "json"}
    return httpx2.Request("GET", f"{url}/search", params=params, headers=headers)


def _brave(url: str, query: str, count: int, key: str) -> httpx2.Request:
    headers = {"x-subscription-token": key, "accept": "application/json"}
    params = {"q": query, "count": str(count), "text_decorations": "false"}
    return httpx2.Request("GET", f"{url}/res/v1/web/search", params=params, headers=headers)


def _tavily(url: str, query: str, count: int, key: str) -> httpx2.Request:
    headers = {"authorization": f"Bearer {key}"}
    asked = {"query": query, "max_results": count}
    return httpx2.Request("POST", f"{url}/search", json=asked, headers=headers)


_BACKENDS: Final[Mapping[SearchBackend, _Backend]] = {
    SearchBackend.SEARXNG: _Backend(
        "http://127.0.0.1:8080",
        _searxng,
        pages=("results",),
        excerpt="content",
        age="publishedDate",
        needs_key=False,
    ),
    SearchBackend.BRAVE: _Backend(
        "https://api.search.brave.com",
        _brave,
        pages=("web", "results"),
        excerpt="description",
        age="page_age",
    ),
    SearchBackend.TAVILY: _Backend(
        "https://api.tavily.com",
        _tavily,
        pages=("results",),
        excerpt="content",
        age="published_date",
    ),
}
