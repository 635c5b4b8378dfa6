"""`anyclaudectl model use` with a real service: the new model answers, or the old one again."""

from pathlib import Path

from tests.integration.conversation import body
from tests.integration.service import Service
from tests.models import saved
from tests.models.requests import user


def test_a_model_that_does_not_load_is_rolled_back(tmp_path: Path) -> None:
    """A sound model is used; one that fails in loading leaves the sound one answering."""
    good = saved.save(tmp_path / "good", template="qwen3")
    broken = saved.save(tmp_path / "broken", template="qwen3")
    with Service() as service:
        service.ready()
        used = service.control("model", "use", str(good))
        # The check does not look at the memory of the machine, so that only the worker fails.
        with (broken / "more.safetensors").open("wb") as sparse:
            sparse.truncate(10**12)
        refused = service.control("model", "use", str(broken))
        with service.http() as http:
            answered = http.post("/v1/messages", json=body(user("Hello."), max_tokens=8))
        model = service.status().model

    assert (used.code, used.stdout) == (0, f"{good} answers now.\n"), used.stderr
    assert refused.code == 1, refused.stderr
    assert "did not load" in refused.stderr
    assert f"{good} answers again" in refused.stderr
    assert answered.status_code == 200
    assert model.id == "anyclaude-good"
