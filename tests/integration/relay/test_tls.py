"""Servers behind TLS: certificates that are trusted, and ones that are not."""

import socket
import ssl
import threading

import pytest

from anyclaude.messages.errors import ApiError
from tests.certificates import make_certificate
from tests.integration.relay_process import RelayProcess
from tests.integration.scripted_upstream import HELLO, ScriptedUpstream, openai_server
from tests.integration.service import Service

ASK = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def upstream(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with ScriptedUpstream(openai_server(lambda _: HELLO), context) as running:
        yield running


def ask(upstream, **settings):
    table = {"base_url": upstream.base_url, "dialect": "openai", "model": "m", **settings}
    with RelayProcess({"it": table}) as relay:
        return relay.message("it", ASK)


def test_a_trusted_certificate(upstream, certificate):
    """A server whose certificate the settings name is reached."""
    message = ask(upstream, ca_file=str(certificate[0]))
    assert message["content"][0]["text"] == "Hello"


def test_an_unknown_certificate(upstream):
    """An unknown certificate stops the request, and the error names the setting."""
    with pytest.raises(ApiError) as error:
        ask(upstream)
    assert (error.value.status, error.value.should_retry) == (500, False)
    assert "upstreams.it.ca_file" in error.value.message
    assert upstream.requests == []


def test_a_certificate_file_that_is_missing(upstream):
    """A wrong path is an error that names it."""
    with pytest.raises(ApiError, match=r"upstreams\.it\.ca_file = /nowhere"):
        ask(upstream, ca_file="/nowhere")


def test_a_server_that_speaks_no_tls():
    """https for an http server is an error that is about TLS."""

    def refuse(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=[listener])
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        table = {"base_url": url, "dialect": "openai", "model": "m"}
        with RelayProcess({"it": table}) as relay, pytest.raises(ApiError, match="No TLS"):
            relay.message("it", ASK)
        thread.join(5)


def test_a_private_authority_through_the_whole_service(upstream, certificate):
    """SSL_CERT_FILE of the daemon's shell reaches the relay, which then trusts that authority."""
    with Service(
        ANYCLAUDE_MODE="mine",
        ANYCLAUDE__UPSTREAMS__MINE__BASE_URL=upstream.base_url,
        ANYCLAUDE__UPSTREAMS__MINE__DIALECT="openai",
        ANYCLAUDE__UPSTREAMS__MINE__MODEL="m",
        SSL_CERT_FILE=str(certificate[0]),
    ) as service:
        with service.ready().http() as client:
            answer = client.post("/v1/messages", json=ASK)
        assert answer.json()["content"][0]["text"] == "Hello", answer.text
        assert service.stop() == 0
