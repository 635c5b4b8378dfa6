"""`anyclaude`: starts Claude Code with the environment that makes it use this machine's service."""
