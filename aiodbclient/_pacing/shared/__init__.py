"""A rate budget that several processes share through Valkey or Redis.

- ``budget``: ``SharedRateBudget``, with the calls that wait in this process.
- ``slots``: asks Valkey for slots, and reports those that ended.
- ``held``: the slots that this process holds.
- ``script``: runs ``slots.lua``, which hands out the slots.
- ``messages``: what the script is asked, and what it replies.
- ``facts``: what is known of the token (the limits, others, the gate), as the processes exchange it.
- ``fallback``: what a process may send while Valkey does not answer.
"""
