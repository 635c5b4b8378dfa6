"""Short spellings of worker events, for tests that play the worker."""

from collections.abc import Iterator

from anyclaude.worker.v1 import worker_pb2 as worker

USAGE = worker.Usage(input_tokens=1, cache_read_tokens=90, cache_creation_tokens=9)


def started(usage: worker.Usage = USAGE) -> worker.GenerateResponse:
    return worker.GenerateResponse(started=worker.Started(usage=usage))


def progress(prefilled: int = 1, of: int = 2) -> worker.GenerateResponse:
    return worker.GenerateResponse(
        progress=worker.Progress(prefilled_tokens=prefilled, prompt_tokens=of)
    )


def text_start(index: int = 0) -> worker.GenerateResponse:
    return worker.GenerateResponse(
        block_start=worker.BlockStart(index=index, text=worker.TextBlock())
    )


def thinking_start(index: int = 0) -> worker.GenerateResponse:
    return worker.GenerateResponse(
        block_start=worker.BlockStart(index=index, thinking=worker.ThinkingBlock())
    )


def tool_start(
    index: int = 0, tool_id: str = "toolu_1", name: str = "Bash"
) -> worker.GenerateResponse:
    return worker.GenerateResponse(
        block_start=worker.BlockStart(
            index=index, tool_use=worker.ToolUseBlock(id=tool_id, name=name)
        )
    )


def delta(index: int = 0, **piece: str) -> worker.GenerateResponse:
    return worker.GenerateResponse(block_delta=worker.BlockDelta(index=index, **piece))


def stop(index: int = 0) -> worker.GenerateResponse:
    return worker.GenerateResponse(block_stop=worker.BlockStop(index=index))


def finished(
    reason: worker.StopReason = worker.STOP_REASON_END_TURN,
    *,
    output_tokens: int = 5,
    stop_sequence: str = "",
) -> worker.GenerateResponse:
    usage = worker.Usage()
    usage.CopyFrom(USAGE)
    usage.output_tokens = output_tokens
    return worker.GenerateResponse(
        finished=worker.Finished(stop_reason=reason, stop_sequence=stop_sequence, usage=usage)
    )


def failed(
    status: int, message: str, *, error_type: str = "", retry_after_seconds: int = 0
) -> worker.GenerateResponse:
    return worker.GenerateResponse(
        failed=worker.Failed(
            status=status,
            type=error_type,
            message=message,
            retry_after_seconds=retry_after_seconds,
        )
    )


def text_answer(*pieces: str) -> Iterator[worker.GenerateResponse]:
    """A whole answer of one text block."""
    yield started()
    yield text_start()
    for piece in pieces:
        yield delta(text=piece)
    yield stop()
    yield finished()
