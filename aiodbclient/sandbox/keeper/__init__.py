"""A throw-away PostgreSQL behind TLS, kept by two processes of its own that watch each other and whoever started them.

The *guard* waits for the end: it comes when the starter closes the guard's stdin or is no more. The *worker* runs
PostgreSQL and the front that clients connect to. Whichever of the two outlives the other stops PostgreSQL and removes
the folder, so that nothing is left when any one process is killed. Where root starts it, both become nobody before
they write anything.

Run with nothing but the standard library: see ``main``.
"""
