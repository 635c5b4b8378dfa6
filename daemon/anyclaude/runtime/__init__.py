"""What every process needs: paths, settings, logs, gRPC channels, and how a child starts."""
