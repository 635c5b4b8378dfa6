"""What a conversation is about, from the transcript that Claude Code itself keeps of it.

The service stores no words of a prompt, so its records name a conversation by an id only. Claude
Code has the words on this machine, in `projects/FOLDER/SESSION.jsonl` below its configuration
folder. That format is not documented: what cannot be read counts as unknown.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

# The first prompt stands near the beginning of a transcript.
_READ_BYTES: Final = 256 * 1024


class Conversations:
    def __init__(self, environ: Mapping[str, str]) -> None:
        home = Path(environ.get("HOME") or Path.home())
        folder = Path(environ.get("CLAUDE_CONFIG_DIR") or home / ".claude") / "projects"
        self._files = {file.stem: file for file in folder.glob("*/*.jsonl")}
        self._titles: dict[str, str] = {}

    def title(self, session_id: str) -> str:
        """The project's folder and the first words, on one line; empty if they are not known."""
        if session_id not in self._titles:
            file = self._files.get(session_id)
            self._titles[session_id] = _title(file) if file else ""
        return self._titles[session_id]

    def project(self, session_id: str) -> str:
        """Only the name of the project's folder; empty if it is not known."""
        return self.title(session_id).partition(":")[0]


def _title(file: Path) -> str:
    for line in _lines(file):
        words = _words(line.get("message"))
        if line.get("type") == "user" and not line.get("isMeta") and words:
            return f"{Path(str(line.get('cwd', ''))).name}: {words}"
    return ""


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with file.open("rb") as stream:
            while stream.tell() < _READ_BYTES and (line := stream.readline(_READ_BYTES)):
                try:
                    found = json.loads(line)
                except ValueError:
                    continue
                if isinstance(found, dict):
                    yield found
    except OSError:
        return


def _words(message: Any) -> str:
    """What the user wrote in a message; not what Claude Code adds in tags."""
    content = message.get("content") if isinstance(message, dict) else None
    blocks = [{"text": content}] if isinstance(content, str) else content
    texts = [block.get("text") for block in blocks or () if isinstance(block, dict)]
    written = [
        text for text in texts if isinstance(text, str) and not text.lstrip().startswith("<")
    ]
    words = " ".join(" ".join(written).split())
    return "".join(letter for letter in words if letter.isprintable())
