"""The real relay worker as a child process, with a test in place of daemon and front end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anyclaude.messages.accumulator import MessageAccumulator
from anyclaude.messages.errors import ApiError
from anyclaude.messages.events import EventMachine
from anyclaude.runtime.channels import sync_channel
from anyclaude.runtime.child import Birth
from anyclaude.runtime.paths import find_paths
from anyclaude.runtime.settings import Settings
from anyclaude.worker.v1 import worker_pb2 as pb
from anyclaude.worker.v1.worker_pb2_grpc import WorkerServiceStub
from tests.integration.generate_call import Call

CALL_SECONDS = 60


class RelayProcess:
    """Starts `python -m anyclaude.relay` with these upstreams, and always ends it."""

    def __init__(
        self,
        upstreams: Mapping[str, Mapping[str, Any]],
        environ: Mapping[str, str] | None = None,
        log_level: str = "debug",
        documents: Mapping[str, int] | None = None,
    ) -> None:
        self.modes = list(upstreams)
        self._calls: list[Call] = []
        self.home = Path(tempfile.mkdtemp(dir="/tmp", prefix="ac-r-"))
        self._log_file = (self.home / "log").open("w+")
        paths = find_paths({"ANYCLAUDE_HOME": str(self.home)})
        paths.create()
        birth = Birth(
            name="relay",
            generation=1,
            socket_path=paths.worker_socket("relay", 1),
            paths=paths,
            settings=Settings.model_validate(
                {
                    "upstreams": upstreams,
                    "log": {"level": log_level},
                    "documents": documents or {},
                }
            ),
        )
        self.socket_path = birth.socket_path
        self.process = subprocess.Popen(
            [sys.executable, "-m", "anyclaude.relay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            text=True,
            env={"PATH": os.environ["PATH"], **(environ or {})},
        )
        assert self.process.stdin is not None
        self.process.stdin.write(birth.to_json() + "\n")
        self.process.stdin.flush()

    def __enter__(self) -> "RelayProcess":
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "ready" in json.loads(line or "{}"), self.log_text()
        self.channel = sync_channel(self.socket_path)
        self.stub: Any = WorkerServiceStub(self.channel)
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        for call in self._calls:
            call.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self._log_file.close()
        shutil.rmtree(self.home)

    def call(self, mode: str, body: Mapping[str, Any]) -> Call:
        request = pb.GenerateRequest(
            request_id="req_test", body_json=json.dumps(body).encode(), mode=mode
        )
        call = Call(self.socket_path, request, CALL_SECONDS)
        self._calls.append(call)
        return call

    def events(self, mode: str, body: Mapping[str, Any]) -> list[pb.GenerateResponse]:
        return list(self.call(mode, body))

    def message(self, mode: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The response as a client gets it, through the front end's grammar."""
        return fold(self.call(mode, body))

    def count(self, mode: str, body: Mapping[str, Any]) -> pb.CountTokensResponse:
        request = pb.CountTokensRequest(body_json=json.dumps(body).encode(), mode=mode)
        answer: pb.CountTokensResponse = self.stub.CountTokens(request, timeout=CALL_SECONDS)
        return answer

    def forward(
        self, mode: str, head: Mapping[str, Any], headers: list[tuple[str, str]], *body: bytes
    ) -> list[pb.ForwardResponse]:
        def parts() -> Iterator[pb.ForwardRequest]:
            listed = [pb.HttpHeader(name=name, value=value) for name, value in headers]
            yield pb.ForwardRequest(head=pb.ForwardRequestHead(mode=mode, headers=listed, **head))
            for piece in body:
                yield pb.ForwardRequest(body=piece)

        return list(self.stub.Forward(parts(), timeout=CALL_SECONDS))

    def status(self, name: str, *, check: bool = False) -> pb.UpstreamStatus:
        request = pb.GetStatusRequest(check_mode=name if check else "")
        answer = self.stub.GetStatus(request, timeout=CALL_SECONDS)
        return next(upstream for upstream in answer.upstreams if upstream.name == name)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def log_text(self) -> str:
        return (self.home / "log").read_text()


def fold(events: Any) -> dict[str, Any]:
    """Folds worker events into a Message.

    Raises:
        ApiError: they end in Failed.
        GrammarError: they are not in order.
    """
    machine, message = EventMachine("msg_test", "test"), MessageAccumulator()
    for event in events:
        if event.HasField("failed"):
            raise failure(event.failed)
        for told in machine.feed(event):
            message.add(told)
    assert machine.ended, "the events end without Finished or Failed"
    return message.message()


def failure(failed: pb.Failed) -> ApiError:
    return ApiError(
        failed.status,
        failed.message,
        failed.retry_after_seconds or None,
        failed.should_retry if failed.HasField("should_retry") else None,
        failed.type,
    )
