"""After a SIGKILL of the service, caches are read back from disk."""

from pathlib import Path

from tests.integration.prompts import body
from tests.integration.service import Service
from tests.models import saved


def test_a_killed_service_finds_its_caches_again(tmp_path: Path) -> None:
    """After SIGKILL of worker and daemon the same prompt is reused from disk, except one token."""
    model, home = saved.save(tmp_path / "model"), tmp_path / "home"
    home.mkdir()
    with Service(model=model, home=home) as service, service.ready().http() as client:
        first = client.post("/v1/messages", json=body()).json()["usage"]
        # Caches are written behind: the stable prefix, and the conversation after it.
        service.poll(lambda status: status.disk.written_records >= 2)
        for child in service.children():
            child.kill()
        service.process.kill()
        service.process.wait()
    with Service(model=model, home=home) as service, service.ready().http() as client:
        again = client.post("/v1/messages", json=body()).json()["usage"]
    assert first["cache_read_input_tokens"] == 0
    assert again["cache_read_input_tokens"] == first["cache_creation_input_tokens"]
