"""A rate budget that several processes share through Valkey or Redis.

- ``budget``: ``SharedRateBudget``, with the calls that wait in this process.
- ``slots``: asks Valkey for slots, and tells it of those that ended.
- ``held``: the slots that this process holds.
- ``backlog``: answers that the account has not learned from yet.
- ``memory``: runs the script ``slots.lua``, which hands out the slots.
- ``messages``: what is asked of the script, and what it replies.
- ``facts``: what is known of the token, as the processes tell it each other: the limits, others, the gate.
- ``fallback``: what a process may send while Valkey does not answer.
"""
