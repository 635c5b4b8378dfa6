"""What a Mac owner runs to check what only a Mac can show: `tools/mac-check`."""
