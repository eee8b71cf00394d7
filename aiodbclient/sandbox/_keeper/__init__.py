"""Runs an embedded PostgreSQL in two processes, so that it leaves nothing behind when one process is killed.

The *guard* waits until the process that started it closes the guard's stdin or ends. The *worker* runs PostgreSQL, and
the TLS front that clients connect to. If one of the two dies, the other stops PostgreSQL and removes its folder. If
root starts them, both become the user ``nobody`` before they write anything.

The modules here import only the standard library and each other. ``main`` documents how to run them.
"""
