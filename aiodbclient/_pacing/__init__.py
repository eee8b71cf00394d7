"""The client's rate limiter: it sends requests as early as the server's sliding windows allow, and meets no 429.

The server counts a request somewhere between our sending it and our reading its answer. So a request holds a slot of
every window from ``acquire`` until one window after ``release``. The server then never counts more than ``limit`` of
our requests in any span of ``seconds``, whatever the latency. The server's clock does not matter.

- ``headers``: reads the rate limit headers of an answer.
- ``window``: the slots of one window, ours and those of other clients of the token.
- ``account``: what the answers say about a token: its limit, others, and the gate that follows a 429.
- ``ledger``: the slots that are taken, and what they say about the account.
- ``queue``: the calls that wait: lanes, patience, one timer.
- ``budget``: ``RateBudget``, for one event loop, made of these.
- ``shared``: ``SharedRateBudget``, for several processes, with the calls that wait in this one.
- ``process``: the requests of one process, and what it may send while the server is away.
- ``fleet``: what an ask of a process does to the state that all share: what ``RateBudget`` does.
- ``state``: that state as text.
- ``cells``: the text in a server; ``postgres_cell`` and ``valkey_cell``.
"""
