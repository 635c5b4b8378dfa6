"""Servers behind TLS: certificates that are trusted, and ones that are not."""

import socket
import ssl
import threading

import pytest

from anyclaude.messages.errors import ApiError
from tests.certificates import make_certificate
from tests.integration.relay_process import RelayProcess
from tests.integration.scripted_upstream import HELLO, ScriptedUpstream, openai_server

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
    """With its certificate named, the server answers."""
    message = ask(upstream, ca_file=str(certificate[0]))
    assert message["content"][0]["text"] == "Hello"


def test_an_unknown_certificate(upstream):
    """Without, nothing is sent, and the error names the setting."""
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
    """https where http was meant says that it is about TLS."""

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
