"""The Messages API, defined once: wire types, event grammar, usage, errors, identity."""
