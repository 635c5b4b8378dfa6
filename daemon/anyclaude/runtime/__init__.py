"""What every process needs: paths, settings, logs, the child-process shell, channels."""
