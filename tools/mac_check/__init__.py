"""Checks that a Mac's owner runs for what only a Mac can show: `tools/mac-check`."""
