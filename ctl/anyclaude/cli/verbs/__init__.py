"""The verbs of `anyclaudectl`, one file each."""
