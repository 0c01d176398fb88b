"""The verbs: what people, the command line and the control API do with models.

Hides which rooms a verb passes through, and is the one place where concrete classes are wired together. It must not import the data plane.
"""

from modelyard.control.plane import ControlPlane as ControlPlane
from modelyard.control.plane import package as package
