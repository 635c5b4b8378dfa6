"""The surface around Messages requests: paths, headers, models, probes."""

import json

import httpx
import pytest

from tests.conformance.bodies import HI
from tests.conformance.endpoint import COUNT, MESSAGES, Endpoint, accepted, check_refusal
from tests.conformance.rows import Row, row

NOT_FOUND = (404, "not_found_error")


@row(Row.PATH)
@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/messages?beta=true", "/v1/messages?a=1&b=%20x"]
)
def test_any_query(endpoint: Endpoint, path: str) -> None:
    """The query does not change which endpoint serves a path."""
    accepted(endpoint.post(path))


@row(Row.PATH)
def test_body_in_chunks(endpoint: Endpoint) -> None:
    """A chunked body without a length or content type is read to its end."""
    raw = json.dumps(endpoint.body()).encode()
    accepted(
        endpoint.http.post(MESSAGES, content=(raw[at : at + 7] for at in range(0, len(raw), 7)))
    )


@row(Row.PATH)
@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/messages/nothing", "/nothing"])
def test_unknown_path(endpoint: Endpoint, path: str) -> None:
    """An unknown path is a 404 in the API's envelope."""
    check_refusal(endpoint.http.get(path), *NOT_FOUND)


@row(Row.PATH)
def test_wrong_method(endpoint: Endpoint) -> None:
    """GET on the Messages path is refused in JSON."""
    response = endpoint.http.get("/v1/messages")
    assert response.status_code in (404, 405)
    assert response.json()["type"] == "error"


@row(Row.PATH)
@pytest.mark.parametrize("path", ["/", "/api/hello"])
def test_probe(surface: Endpoint, path: str) -> None:
    """The client's HEAD probe gets an empty 200."""
    response = surface.http.head(path)
    assert (response.status_code, response.content) == (200, b"")


@row(Row.AUTH)
@pytest.mark.parametrize("names", ["x-api-key", "authorization", "x-api-key authorization"])
def test_authentication(endpoint: Endpoint, names: str) -> None:
    """A key as x-api-key, as Bearer token or as both is accepted."""
    values = {"x-api-key": endpoint.api_key, "authorization": f"Bearer {endpoint.api_key}"}
    headers = {name: values[name] for name in names.split()}
    accepted(httpx.post(endpoint.base_url + MESSAGES, json=endpoint.body(), headers=headers))


@row(Row.VERSION)
@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21", "2099-01-01", ""])
def test_version(endpoint: Endpoint, version: str) -> None:
    """Any anthropic-version is accepted, and none as well."""
    headers = {"x-api-key": endpoint.api_key} | ({"anthropic-version": version} if version else {})
    body = endpoint.body()
    accepted(httpx.post(endpoint.base_url + MESSAGES, json=body, headers=headers, timeout=120))


@row(Row.VERSION)
def test_betas(endpoint: Endpoint) -> None:
    """Unknown betas are ignored, and not echoed."""
    betas = "interleaved-thinking-2025-05-14,nobody-knows-this-2031-01-01"
    response = endpoint.post(headers={"anthropic-beta": betas})
    accepted(response)
    assert "anthropic-beta" not in response.headers


@row(Row.MODEL)
@pytest.mark.parametrize(
    "name", ["claude-haiku-4-5-20251001", "claude-opus-4-8[1m]", "anyclaude-x", "owner/model:tag"]
)
def test_any_model(endpoint: Endpoint, name: str) -> None:
    """Any model name is accepted, and echoed as requested."""
    assert endpoint.create(model=name)["model"] == name
    assert endpoint.stream(model=name).message.start["model"] == name


@row(Row.MODELS)
def test_models(surface: Endpoint) -> None:
    """The list has the shape of the Models API, in every field that clients read."""
    answer = surface.http.get("/v1/models?limit=1000").json()
    assert answer["has_more"] is False
    assert answer["data"]
    assert (answer["first_id"], answer["last_id"]) == (
        answer["data"][0]["id"],
        answer["data"][-1]["id"],
    )
    for model in answer["data"]:
        assert model["type"] == "model"
        assert isinstance(model["id"], str)
        assert isinstance(model["display_name"], str)
        assert model["created_at"].endswith("Z")
        assert model["lifecycle"] == "active"


@row(Row.MODELS)
def test_discovered(surface: Endpoint) -> None:
    """A name in the list can appear in Claude Code's picker: it contains claude or anthropic."""
    ids = [model["id"] for model in surface.http.get("/v1/models").json()["data"]]
    assert any("claude" in model or "anthropic" in model for model in ids), ids


@row(Row.MODELS)
def test_window(surface: Endpoint) -> None:
    """The list has the length of a prompt and of an answer."""
    (model, *_) = surface.http.get("/v1/models").json()["data"]
    assert model["max_input_tokens"] > 0
    assert model["max_tokens"] > 0


@row(Row.MODELS)
def test_one_model(surface: Endpoint) -> None:
    """Each listed model can be requested by id, and any other is a 404."""
    (model, *_) = surface.http.get("/v1/models").json()["data"]
    assert surface.http.get(f"/v1/models/{model['id']}").json()["id"] == model["id"]
    check_refusal(surface.http.get("/v1/models/no-such-model"), *NOT_FOUND)


@row(Row.HEADERS)
@pytest.mark.parametrize("stream", [False, True])
def test_request_id(endpoint: Endpoint, stream: bool) -> None:
    """Every response has a request-id of its own, errors included."""
    answers = [endpoint.post(stream=stream) for _ in range(3)]
    answers += [endpoint.post(max_tokens=-1), endpoint.http.get("/v1/nothing")]
    ids = [answer.headers.get("request-id", "") for answer in answers]
    assert all(ids)
    assert len(set(ids)) == len(ids)


@row(Row.HEADERS)
def test_content_types(endpoint: Endpoint) -> None:
    """JSON and streams have their content types."""
    assert endpoint.post().headers["content-type"].startswith("application/json")
    stream = endpoint.stream().response
    assert stream.headers["content-type"].startswith("text/event-stream")


@row(Row.HEADERS)
def test_cors(endpoint: Endpoint) -> None:
    """Only a page of this machine may read responses, and no other page may use its permission."""
    origin = "http://localhost:3000"
    assert "access-control-allow-origin" not in endpoint.post().headers
    assert (
        endpoint.post(headers={"origin": origin}).headers["access-control-allow-origin"] == origin
    )


@row(Row.PRIVACY)
def test_foreign_origin(endpoint: Endpoint) -> None:
    """A web page of another origin is refused."""
    assert endpoint.post(headers={"origin": "https://example.com"}).status_code == 403


@row(Row.PRIVACY)
def test_rebound_host(endpoint: Endpoint) -> None:
    """A host name that was rebound to this machine is refused."""
    assert endpoint.post(headers={"host": "example.com"}).status_code == 403


@row(Row.PRIVACY)
def test_telemetry(surface: Endpoint) -> None:
    """The client's telemetry is accepted and not forwarded."""
    response = surface.http.post("/api/event_logging/batch", json={"events": [{}]})
    assert (response.status_code, response.json()) == (200, {})


@row(Row.PRIVACY)
@pytest.mark.parametrize("path", ["/api/oauth/profile", "/v1/organizations", "/v1/files"])
def test_nothing_is_forwarded(surface: Endpoint, path: str) -> None:
    """An unknown path is a 404 and is not forwarded."""
    assert surface.http.get(path).status_code == 404


@row(Row.METADATA)
@pytest.mark.parametrize(
    "user_id",
    [
        "user_" + "ab" * 32 + "_account__session_11111111-2222-3333-4444-555555555555",
        json.dumps({"device_id": "d", "account_uuid": "", "session_id": "1111-2222"}),
        "someone@example.com",
        "",
        None,
        "{broken",
        "x" * 5000,
    ],
    ids=["legacy", "JSON", "free", "empty", "null", "broken", "long"],
)
def test_user_id(endpoint: Endpoint, user_id: str | None) -> None:
    """Both forms of metadata.user_id are accepted, and so is any other."""
    endpoint.create(metadata={"user_id": user_id})


@row(Row.METADATA)
def test_user_id_is_not_prompt(endpoint: Endpoint) -> None:
    """metadata.user_id is not part of the prompt."""
    named = {"user_id": json.dumps({"device_id": "d" * 64, "session_id": "1111-2222"})}
    assert endpoint.count(metadata=named) == endpoint.count()


@row(Row.METADATA)
def test_identity_headers(endpoint: Endpoint) -> None:
    """Claude Code's identity and hint headers are accepted with any value."""
    headers = {
        "x-claude-code-session-id": "8e1f2f0a-1111-2222-3333-444444444444",
        "x-claude-code-agent-id": "../../etc/passwd",
        "x-claude-code-parent-agent-id": "(an agent); 7",
        "x-claude-code-request-class": "never-heard-of",
        "x-claude-code-compaction": "auto",
        "x-claude-code-prev-tool-durations": "Bash=24",
    }
    accepted(endpoint.post(headers=headers))


@row(Row.COUNT_TOKENS)
@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", COUNT])
def test_count_path(endpoint: Endpoint, path: str) -> None:
    """A count needs no max_tokens, and its response is only the number."""
    response = endpoint.post(path, max_tokens=None)
    assert response.status_code == 200, response.text
    assert response.json().keys() == {"input_tokens"}


@row(Row.COUNT_TOKENS)
def test_count_refuses(endpoint: Endpoint) -> None:
    """An invalid request is refused by counting as by generation."""
    body = {"model": endpoint.model, "messages": list(HI)[:0]}
    check_refusal(endpoint.http.post(COUNT, json=body), 400, "invalid_request_error")
