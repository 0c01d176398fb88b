"""How a change reaches the traffic: a pure state machine per strategy, and one driver that acts on a target.

Hides the steps between "this release shall serve" and "it does, or the old one still does". The strategies know no clock, store or target; only
the driver does. It must not import the data plane.
"""

from __future__ import annotations
