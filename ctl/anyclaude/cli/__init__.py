"""`anyclaudectl`: a client of the daemon's control API, with one file per verb in `verbs`.

All decisions are made by the daemon. Results go to standard output, messages to standard error.
"""
