"""The text of a document block: plain text, blocks, and PDF files.

A document that has no text, or is not here, becomes a sentence that says so. It never refuses a
request: the document stays in the history, so every later turn would be refused as well.
`[documents]` of the settings bounds how much of a PDF is read. `limit_documents` sets the bounds of
the process, once, before its first request.
Source: "PDF support" and "Citations" in Anthropic's documentation.
"""

import base64
import binascii
import functools
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from anyclaude.messages.schemas import as_object
from anyclaude.runtime.settings import DocumentSettings

if TYPE_CHECKING:
    from pypdf import PdfReader

_PDF: Final = b"%PDF"


def document_text(block: Mapping[str, Any], inner_text: Callable[[Any], str]) -> str:
    """The title, the context and the text of a document; `inner_text` gives that of its blocks."""
    parts = [block.get("title"), block.get("context")]
    parts.append(_source_text(block.get("source"), inner_text))
    return "\n\n".join(part for part in parts if isinstance(part, str) and part)


def _source_text(source: Any, inner_text: Callable[[Any], str]) -> str:
    source = as_object(source)
    data = source.get("data")
    match source.get("type"):
        case "text" if isinstance(data, str):
            return data
        case "content":
            return inner_text(source.get("content"))
        case "base64" if isinstance(data, str):
            return _file_text(data, str(source.get("media_type") or "unknown type"))
        case "url":
            where = source.get("url")
            return f"[A document at {where}. It was not fetched: send its content instead.]"
        case "file":
            name = source.get("file_id")
            return f"[The uploaded file {name}. It is not stored on this server.]"
        case _:
            return "[A document whose content is missing.]"


def _file_text(data: str, media_type: str) -> str:
    try:
        content = base64.b64decode(data, validate=False)
    except (binascii.Error, ValueError):
        return f"[A document ({media_type}) that cannot be read: it is not valid base64.]"
    if content.lstrip()[: len(_PDF)] == _PDF or media_type == "application/pdf":
        return _Process.reader.text(content)
    if media_type.startswith("text/"):
        return content.decode(errors="replace")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = ""
    # A file of bytes may be valid UTF-8 by chance.
    is_text = bool(text) and "\0" not in text
    return text if is_text else f"[A document ({media_type}) that cannot be read as text.]"


class _PdfReader:
    """Reads PDFs within the bounds of the settings, and keeps the text of the last ones."""

    def __init__(self, limits: DocumentSettings) -> None:
        self._limits = limits
        self.text = functools.lru_cache(maxsize=limits.cached_pdfs)(self._text)

    def _text(self, content: bytes) -> str:
        # Few processes ever read a PDF, and importing pypdf takes a tenth of a second.
        import pypdf

        # pypdf logs each irregularity of a file, and few files have none.
        logging.getLogger("pypdf").setLevel(logging.CRITICAL)
        try:
            reader = pypdf.PdfReader(io.BytesIO(content))
            if reader.is_encrypted and not reader.decrypt(""):
                return "[A PDF document that cannot be read: it needs a password.]"
            text = "\n\n".join(self._pages(reader))
            return text or "[A PDF document without text. Its pages may be images.]"
        except Exception as error:  # noqa: BLE001 - pypdf raises any error on malformed files
            return f"[A PDF document that cannot be read: {type(error).__name__}.]"

    def _pages(self, reader: "PdfReader") -> Iterator[str]:
        left_bytes = self._limits.pdf_max_content_bytes
        left_characters = self._limits.pdf_max_characters
        for number, page in enumerate(reader.pages, 1):
            contents = page.get_contents()
            left_bytes -= len(contents.get_data()) if contents is not None else 0
            is_read = number <= self._limits.pdf_max_pages and left_bytes >= 0
            text = page.extract_text().strip() if is_read else ""
            left_characters -= len(text)
            if not is_read or left_characters < 0:
                yield f"[The pages from {number} on are left out: the document is too long.]"
                return
            if text:
                yield f"[Page {number}]\n{text}"


class _Process:
    """What reads the PDFs of this process."""

    reader = _PdfReader(DocumentSettings())


def limit_documents(limits: DocumentSettings) -> None:
    """Sets the bounds of this process. Texts that were read within other bounds are forgotten."""
    _Process.reader = _PdfReader(limits)
