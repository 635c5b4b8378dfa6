"""Describes images to a local model that reads text only, by the mode that the settings name.

Each image is described once: the description is kept in a file, so the prompts of later turns stay
the same, also after a restart. If the mode does not answer, the model reads that an image is there,
as without this module, and the image is asked about again after a while.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic_core import to_json

from anyclaude.messages.errors import ApiError
from anyclaude.messages.events import new_message_id
from anyclaude.messages.images import Image, images_in, with_texts
from anyclaude.messages.requests import CountTokensRequest, read_json
from anyclaude.proxy.routes import RouteTable
from anyclaude.proxy.submission import Submissions
from anyclaude.runtime.paths import make_private_folder, write_atomically
from anyclaude.runtime.settings import VisionSettings
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger("anyclaude.proxy.vision")

_QUESTION: Final = (
    "Describe this image for someone who cannot see it and has to work with it: what it shows, and "
    "all text in it, word for word. Answer with the description only."
)
# After a failure, the server is not asked about the same image for this long.
_RETRY_SECONDS: Final = 60.0


class Vision:
    """The descriptions of images, made by the mode of the settings."""

    def __init__(
        self, settings: VisionSettings, folder: Path, routes: RouteTable, submissions: Submissions
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._routes = routes
        self._submissions = submissions
        # Descriptions that are being made, by digest, so that no image is asked about twice.
        self._running: dict[str, asyncio.Task[str]] = {}
        # When an image may be asked about again after a failure (the loop's clock).
        self._failed: dict[str, float] = {}

    async def described(self, request: CountTokensRequest, body: bytes) -> bytes:
        """The body with descriptions in the place of its images, as far as there are any."""
        if not self._settings.mode or not request.image_count:
            return body
        document: dict[str, Any] = read_json(body)
        # One after the other: a local server answers one at a time anyway.
        texts = {image.digest: await self._text(image) for image in images_in(document)}
        return to_json(with_texts(document, {key: text for key, text in texts.items() if text}))

    async def _text(self, image: Image) -> str:
        """What the model reads instead of the image; empty if the image could not be described."""
        file = self._folder / f"{image.digest}.txt"
        with suppress(FileNotFoundError):
            return file.read_text(encoding="utf-8")
        if self._failed.get(image.digest, 0.0) > asyncio.get_running_loop().time():
            return ""
        if image.digest not in self._running:
            task = asyncio.ensure_future(self._describe(image, file))
            self._running[image.digest] = task
            task.add_done_callback(lambda _: self._running.pop(image.digest, None))
        # A client that leaves does not end it: the next turn has the same image.
        return await asyncio.shield(self._running[image.digest])

    async def _describe(self, image: Image, file: Path) -> str:
        mode, seconds = self._settings.mode, self._settings.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                said = await self._ask(image)
        except (ApiError, TimeoutError) as error:
            why = error.message if isinstance(error, ApiError) else f"no answer in {seconds:.0f} s"
            log.warning("image not described", mode=mode, why=why)
            self._note_failure(image)
            return ""
        text = f"[An image. Mode {mode} describes it so:\n{said}]"
        make_private_folder(self._folder)
        write_atomically(file, text.encode(), 0o600)
        self._forget_oldest()
        return text

    def _note_failure(self, image: Image) -> None:
        now = asyncio.get_running_loop().time()
        self._failed = {key: until for key, until in self._failed.items() if until > now}
        self._failed[image.digest] = now + _RETRY_SECONDS

    def _forget_oldest(self) -> None:
        files = sorted(self._folder.glob("*.txt"), key=lambda each: each.stat().st_mtime)
        for file in files[: -self._settings.max_descriptions]:
            file.unlink(missing_ok=True)

    async def _ask(self, image: Image) -> str:
        """The answer of the mode's server.

        Raises:
            ApiError: the mode cannot serve now, or its server refuses or says nothing.
        """
        route = self._routes.find_ready(self._settings.mode)
        question = [image.block, {"type": "text", "text": _QUESTION}]
        body = {
            "model": route.model.id or "any",
            "max_tokens": self._settings.max_tokens,
            "messages": [{"role": "user", "content": question}],
        }
        message_id = new_message_id()
        call = worker.GenerateRequest(
            request_id=message_id, body_json=to_json(body), mode=route.mode, message_id=message_id
        )
        pieces: list[str] = []
        async with self._submissions.submit(route, call, may_wait=False) as submission:
            while True:
                for event in await submission.next(None):
                    if event.HasField("finished"):
                        return _said(pieces)
                    pieces.append(event.block_delta.text)


def _said(pieces: list[str]) -> str:
    if text := "".join(pieces).strip():
        return text
    raise ApiError(502, "The server described the image with no words.")
