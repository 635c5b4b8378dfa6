"""The front end: serves the Anthropic Messages API over HTTP.

Start reading at `app` (paths and what all responses share) and `messages` (one request). `context`
contains the state of a request, `routes` which worker answers, `generation` the call to the worker,
and `message_response` turns the worker's events into the response.
"""
