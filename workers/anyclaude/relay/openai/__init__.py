"""The OpenAI dialect: Messages requests to chat completions, and their chunks back to events."""
