"""The client's rate limiter: it sends requests as early as the server's sliding windows allow, and meets no 429.

The server counts a request somewhere between our sending it and our reading its answer. So a request holds a slot of
every window from ``acquire`` until one window after ``release``. The server then never counts more than ``limit`` of
our requests in any span of ``seconds``, whatever the latency. The server's clock does not matter.
"""
