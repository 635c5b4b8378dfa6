"""The response to a web search where nothing can run one.

Claude Code's WebSearch sends each query as a request of its own, whose one tool is the API's server
tool. A model would invent results; this response says at once that nothing was searched.
"""

from typing import Final

from anyclaude.messages.blocks import BlockWriter
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


def not_searched(prompt_tokens: int) -> list[pb.GenerateResponse]:
    """The events of the response; no model runs."""
    usage = pb.Usage(input_tokens=prompt_tokens)
    writer = BlockWriter()
    writer.add(pb.GenerateResponse(started=pb.Started(usage=usage)))
    writer.text(NOT_SEARCHED)
    writer.close()
    finished = pb.Finished(stop_reason=pb.STOP_REASON_END_TURN, usage=usage)
    writer.add(pb.GenerateResponse(finished=finished))
    return writer.drain()
