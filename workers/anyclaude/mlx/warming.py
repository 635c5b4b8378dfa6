"""What `cache warm` is given, made into a request that computes a prompt and answers nothing."""

import json

from anyclaude.messages.errors import invalid_request

# What a conversation begins with is not what is warmed.
_STAND_IN = [{"role": "user", "content": "Hello."}]


def warm_up_body(given: bytes) -> bytes:
    """The body of a Messages request with no answer; its messages may be left out.

    Raises:
        ApiError: it is not a JSON object.
    """
    try:
        body = json.loads(given)
    except ValueError as error:
        raise invalid_request(f"The file is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise invalid_request("The file is no Messages request: it must be a JSON object.")
    whole = {"model": "any", "messages": _STAND_IN, **body, "max_tokens": 0}
    whole.pop("stream", None)
    return json.dumps(whole).encode()
