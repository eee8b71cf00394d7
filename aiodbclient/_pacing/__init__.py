"""The client's side of the rate limit: requests go as early as the server's sliding windows allow, and meet no 429.

The server counts a request at some moment between our sending it and our reading its answer. So a request holds a slot
of every window from ``acquire`` until the window's length after ``release``. Then the server never counts more than
``limit`` of our requests in any span of ``seconds``, whatever the latency. Nothing depends on what its clock shows.

- ``headers``: what an answer's headers say.
- ``window``: the slots of one window.
- ``others``: how many of them other clients of the token hold.
- ``rules``: what follows a 429: the gate, strikes, the ramp.
- ``account``: what answers tell of a token: its limit, others, the gate.
- ``ledger``: the slots that this process has taken.
- ``queue``: the calls that wait: lanes, patience, one timer.
- ``budget``: ``RateBudget``, for one event loop, which is made of these.
- ``shared/``: ``SharedRateBudget``, for several processes. They tell each other an account, its gate too, by
  ``shared/facts``.
"""
