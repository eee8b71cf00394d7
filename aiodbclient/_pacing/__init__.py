"""The rate limiter: it sends requests as early as the API's windows allow, and adapts after a 429.

The server counts a request after we sent it and before we read its response. So a request takes a slot of every window
when it is sent, and frees it one window after its response. Then the server never counts more than ``limit`` of our
requests in any span of ``seconds``, whatever the latency. Both clocks may differ.
"""
