"""The client's rate limiter: it sends requests as early as the server's sliding windows allow, and meets no 429.

The server counts a request somewhere between our sending it and our reading its answer. So a request holds a slot of
every window from ``acquire`` until one window after ``release``. The server then never counts more than ``limit`` of
our requests in any span of ``seconds``, whatever the latency. The server's clock does not matter.

- ``headers``: reads the rate limit headers of an answer.
- ``window``: the slots of one window.
- ``others``: estimates how many of them other clients of the token hold.
- ``rules``: what follows a 429: the gate, strikes, the ramp.
- ``account``: what the answers say about a token: its limit, others, the gate.
- ``ledger``: the slots that this process has taken.
- ``queue``: the calls that wait: lanes, patience, one timer.
- ``budget``: ``RateBudget``, for one event loop, made of these.
- ``shared/``: ``SharedRateBudget``, for several processes. They exchange their accounts by ``shared/facts``.
"""
