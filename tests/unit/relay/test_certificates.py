"""Whose certificates the relay trusts: the variables' authorities first, else the system's."""

import ssl
import sys
from pathlib import Path

import httpcore2
import httpx2
import pytest
import truststore

from anyclaude.relay.transport import Transport, tls_context
from tests.certificates import make_certificate
from tests.integration.scripted_upstream import HELLO, ScriptedUpstream, openai_server

pytestmark = pytest.mark.anyio
_HIDES_A_CUT = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)


@pytest.fixture
def _on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("platform.system", lambda: "Darwin")


@pytest.mark.usefixtures("_on_a_mac")
def test_on_a_mac_the_keychain_decides() -> None:
    """Python's own bundle, which is empty in a Python of python.org, is not used."""
    context = tls_context()

    assert isinstance(context, truststore.SSLContext)
    assert not context.options & _HIDES_A_CUT


@pytest.mark.usefixtures("_on_a_mac")
def test_the_variables_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SSL_CERT_FILE and SSL_CERT_DIR replace the keychain."""
    certificate, _ = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert not isinstance(tls_context(), truststore.SSLContext)

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    (authority,) = tls_context().get_ca_certs()
    assert authority["subject"] == ((("commonName", "127.0.0.1"),),)


@pytest.mark.skipif(sys.platform == "darwin", reason="the keychain does not know the authority")
@pytest.mark.usefixtures("_on_a_mac")
@pytest.mark.parametrize("trusted", [True, False])
async def test_the_system_checks_a_connection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, trusted: bool
) -> None:
    """The system's verification works on the relay's event loop, and refuses a stranger."""
    certificate = make_certificate(tmp_path)
    context = tls_context()
    if trusted:
        # Where the system's store is OpenSSL's, this variable adds to it.
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(*certificate)
    with ScriptedUpstream(openai_server(lambda _: HELLO), server_tls) as server:
        async with httpx2.AsyncClient(transport=Transport(context, None)) as client:
            if trusted:
                await client.get(server.base_url)
                assert len(server.requests) == 1
            else:
                with pytest.raises(httpcore2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await client.get(server.base_url)
