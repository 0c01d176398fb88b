"""The control process: one per home, with an API that always wants a key, and the loops that bring the world to where it should be.

Hides HTTP and threads; it is thin over `ControlPlane`. It must not import the data plane, and nothing that answers predictions needs it.
"""

from __future__ import annotations
