"""`anyclaude`: Claude Code on this machine's service, with the right environment."""
