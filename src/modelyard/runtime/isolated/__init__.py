"""Models that are code: each runs in a process of its own, which can reach nothing but its socket.

Hides processes, isolation and the codec between behind the Runtime port. Data-only in both directions; no code is run in the process that asks.
"""

from modelyard.runtime.isolated.pool import Isolated as Isolated
from modelyard.runtime.isolated.process import Isolation as Isolation
