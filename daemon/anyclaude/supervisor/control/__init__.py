"""The control API, `anyclaude.control.v1`: one file per service, errors in one place."""
