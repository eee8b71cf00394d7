"""Runs an embedded PostgreSQL in two processes, so that nothing is left of it when any one process is killed.

The *guard* waits until the process that started it closes the guard's stdin, or is gone. The *worker* runs PostgreSQL,
and the front with TLS that clients connect to. If one of the two dies, the other stops PostgreSQL and removes its
folder. If root starts them, both become the user nobody before they write anything.

The modules here import nothing but the standard library and each other. ``main`` says how they are run.
"""
