"""The Anthropic dialect: `POST /v1/messages` of LM Studio, Ollama, vLLM, llama.cpp and the API.

`dialect` makes the body of a request, and `answer` reads the response.
"""
