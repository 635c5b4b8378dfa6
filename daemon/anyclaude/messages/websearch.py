"""The answer to a web search where nothing can run one.

Claude Code's WebSearch sends each query as a request of its own, whose one tool is the API's server
tool. A model that was asked so would make up what it found; this says instead that nothing was
searched, at once and without the model.
"""

from collections.abc import Iterator
from typing import Final

from anyclaude.messages.requests import MessagesRequest
from anyclaude.worker.v1 import worker_pb2 as pb

NOT_SEARCHED: Final = (
    "Web search is not available here: nothing was searched, and there are no results. The model "
    "that answers has no search tool. Fetch a known address, use a search tool of an MCP server, "
    "or go on without."
)


def only_searches(request: MessagesRequest) -> bool:
    """Whether a web search is all that the request offers to do."""
    kinds = [tool.type or "" for tool in request.tools]
    return bool(kinds and request.max_tokens) and all(k.startswith("web_search_") for k in kinds)


def not_searched(prompt_tokens: int) -> Iterator[pb.GenerateResponse]:
    """The events of the answer; no token of it is the model's."""
    usage = pb.Usage(input_tokens=prompt_tokens)
    yield pb.GenerateResponse(started=pb.Started(usage=usage))
    yield pb.GenerateResponse(block_start=pb.BlockStart(index=0, text=pb.TextBlock()))
    yield pb.GenerateResponse(block_delta=pb.BlockDelta(index=0, text=NOT_SEARCHED))
    yield pb.GenerateResponse(block_stop=pb.BlockStop(index=0))
    finished = pb.Finished(stop_reason=pb.STOP_REASON_END_TURN, usage=usage)
    yield pb.GenerateResponse(finished=finished)
