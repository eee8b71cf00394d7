"""An API of the same shape on loopback, for tests and for trying things out.

``Sandbox`` answers what the provider's API answers for clusters (read), users and dbs. Nothing here imports
the client.
"""

from __future__ import annotations

from .faults import Fault, Faults
from .records import RecordedRequest
from .sandbox import Sandbox

__all__ = ["Fault", "Faults", "RecordedRequest", "Sandbox"]
