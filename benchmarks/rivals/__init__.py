"""This service and other local servers side by side, by `make rivals`.

Read `rounds` first: it asks every server the same. `contestants` starts and kills the servers, and
`page` writes docs/performance.md and its pictures.
"""
