"""`anyclauded`: supervisor of the children, control API, modes, routes and metrics."""
