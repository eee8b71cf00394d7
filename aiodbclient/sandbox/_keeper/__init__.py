"""Runs an embedded PostgreSQL, and the front that clients connect to, in a process of its own: the *keeper*.

It leaves nothing behind when it ends, or the process that started it is killed. If the keeper itself is killed,
``EmbeddedPostgres.end`` cleans up. A keeper of root becomes the user ``nobody`` before it writes anything.

The modules here import only the standard library and each other.
"""
