"""The `llm` command's library, with a model of its `extra-openai-models.yaml`."""

import json
import os
import tempfile
from pathlib import Path

from report import BASE_URL, COMMAND, LOOP_ENDS, check, report

folder = tempfile.mkdtemp()
os.environ["LLM_USER_PATH"] = folder
(Path(folder) / "extra-openai-models.yaml").write_text(f"""
- model_id: local
  model_name: any
  api_base: {BASE_URL}/v1
  supports_tools: true
  supports_schema: true
""")
import llm  # noqa: E402 - reads the folder when it is imported

model = llm.get_model("local")
model.key = "any"
ran = []


def bash(command: str, description: str) -> str:
    """Run a command."""
    ran.append(command)
    return "hello"


def tool_loop() -> None:
    """tool loop (`model.chain`)"""
    tool = llm.Tool.function(bash, name="Bash")
    said = model.chain("Go.", tools=[tool]).text()
    check(ran == [COMMAND], ran)
    check(LOOP_ENDS in said, said)


def structured() -> None:
    """structured answer (`schema`)"""
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}},
        "required": ["title"],
        "additionalProperties": False,
    }
    said = model.prompt("A title?", schema=schema).text()
    check(json.loads(said)["title"], said)


report(["llm"], tool_loop, structured)
