"""Runs a PostgreSQL in a process of its own: the *keeper*.

It leaves nothing behind when it ends, or the process that started it is killed. If the keeper itself is killed, Linux
ends PostgreSQL, and ``EmbeddedPostgres.end`` cleans up. If both are killed, the next keeper removes the files. A keeper
of root becomes the user ``nobody`` before it writes anything.

The modules here import only the standard library and each other.
"""
