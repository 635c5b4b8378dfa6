"""The relay worker: answers from other servers, through the worker contract.

Start reading at `generation`, which sends one request to a server and reads its response, and
`upstream`, which knows that server. `anthropic` and `openai` are the dialects, `client` and
`transport` speak HTTP, and `forward` passes the requests of mode `claude` through.
"""
