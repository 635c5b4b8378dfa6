"""The OpenAI dialect: translates Messages requests to chat completions, and their chunks to events.

`dialect` makes the body of a request, and `answer` reads the response.
"""
