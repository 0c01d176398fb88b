"""The artefact: a model with its schema, environment lock, data profile, golden records, card, bill of materials and seals, as an OCI image layout.

Hides the format, its verification and its archives behind `build` and `open`. It must not know runtimes, names or stores.
"""

from modelyard.bundle.artefact import Attested as Attested
from modelyard.bundle.artefact import Built as Built
from modelyard.bundle.artefact import Bundle as Bundle
from modelyard.bundle.artefact import Contents as Contents
from modelyard.bundle.artefact import Golden as Golden
from modelyard.bundle.build import build as build
from modelyard.bundle.load import collect as collect
from modelyard.bundle.load import open as open  # noqa: A004 - the noun's own verb
