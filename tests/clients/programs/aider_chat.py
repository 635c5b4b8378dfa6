"""aider as a library, with chat completions."""

import os
import tempfile

from report import BASE_URL, check, report

os.environ |= {
    "OPENAI_API_BASE": f"{BASE_URL}/v1",
    "OPENAI_API_KEY": "any",
    # Prices would be downloaded.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HOME": tempfile.mkdtemp(),
}
from aider.coders import Coder
from aider.io import InputOutput
from aider.models import Model


def _ask(*, stream: bool) -> None:
    os.chdir(tempfile.mkdtemp())
    coder = Coder.create(
        main_model=Model("openai/any"),
        edit_format="ask",
        io=InputOutput(yes=True, pretty=False, fancy_input=False),
        stream=stream,
        use_git=False,
    )
    said = coder.run("Who are you?")
    check("embedded demo model" in said, said)


def streamed() -> None:
    """question about a folder (`Coder.run`, streamed)"""
    _ask(stream=True)


def whole() -> None:
    """question about a folder (`Coder.run`)"""
    _ask(stream=False)


report(["aider-chat"], streamed, whole)
