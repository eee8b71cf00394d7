"""``benchmarks/signups.py`` measures sign-ups by migrations and by template."""

from __future__ import annotations

from signups import measure


async def test_signups_are_measured() -> None:
    """The whole benchmark, with few customers: all sign up in both ways."""
    by_migrations, as_copies = await measure(customers=2, tables=12)
    assert len(by_migrations.seconds) == len(as_copies.seconds) == 2
    assert 0 < as_copies.p50 <= as_copies.p99
