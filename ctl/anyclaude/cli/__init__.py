"""`anyclaudectl`: a client of the daemon's control API, one verb per file.

It holds no logic of the daemon's. Data goes to standard output, everything else to standard error.
"""
