"""Token counts as the Messages API spells them.

Their sum is the prompt; `output_tokens` is cumulative. Clients work out how full the context window
is from these, so they are the worker's counts and never estimates.
"""

from anyclaude.worker.v1 import worker_pb2 as worker


def usage_json(usage: worker.Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
    }
