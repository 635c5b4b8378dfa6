"""The Messages API, defined once for all processes.

`requests` are the types that clients send, `events` the grammar of streamed responses, `errors` the
error envelope, and `identity` finds the session, agent and class of a request.
"""
