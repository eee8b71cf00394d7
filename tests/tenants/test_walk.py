"""A verb reads as one path, from the public method to the statements and back."""

from __future__ import annotations

from ..test_call_path import traced
from .conftest import Place, only


async def test_rotation_path(place: Place) -> None:
    """A rotation on a cluster that is known, as a person who reads it counts: each function once."""
    tenants = place.tenants()
    await tenants.ensure("acme")

    trace = await traced(only(tenants.rotate(["acme"])))

    print(trace)
    assert len(trace.functions) <= 111
    assert len(trace.files) <= 21
