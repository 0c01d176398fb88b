"""What was seen of each deployment's traffic, asked for by `status`.

Hides that the profile to compare with lies in the bundle, which is opened (and verified) once per digest. It must not take observations in: the
intake does.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from modelyard import bundle
from modelyard.errors import ModelyardError
from modelyard.monitor.profile import Profile, reference

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelyard.control.plane import ControlPlane
    from modelyard.monitor.summary import Traffic
    from modelyard.targets.base import Deployment, Release
    from modelyard.types import Digest

KEPT = 256


class Watch:
    """Summaries of deployments' traffic. Safe from several threads: each call reads by a connection of its own."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._profiles: OrderedDict[Digest, Profile | None] = OrderedDict()

    def traffic(self, deployments: Iterable[Deployment]) -> dict[str, Traffic]:
        """By name, what was seen in the last hour. A deployment about which nothing can be read is left out."""
        from modelyard.monitor.intake import windows_path
        from modelyard.monitor.summary import summary
        from modelyard.monitor.windows import Windows

        found: dict[str, Traffic] = {}
        try:
            windows = Windows(windows_path(self._plane.settings))
        except ModelyardError:
            return found
        with contextlib.closing(windows):
            for deployment in deployments:
                release = deployment.current
                reference = None if release is None else self._profile(release)
                digest = None if release is None else release.digest
                with contextlib.suppress(ModelyardError):
                    found[deployment.name] = summary(windows, deployment.name, now=time.time(), digest=digest, reference=reference)
        return found

    def unkept(self) -> tuple[str, ...]:
        """What was observed in the last hour and could not be kept, in words; nothing where that cannot be read."""
        from modelyard.monitor.intake import windows_path
        from modelyard.monitor.summary import RECENT_S, unkept
        from modelyard.monitor.windows import Windows

        with contextlib.suppress(ModelyardError), contextlib.closing(Windows(windows_path(self._plane.settings))) as windows:
            return unkept(windows, since=time.time() - RECENT_S)
        return ()

    def _profile(self, release: Release) -> Profile | None:
        if release.digest not in self._profiles:
            try:
                opened = bundle.open(self._plane.registry.blobs, release.index, trust=self._plane.trust)
                profile = reference(opened)
            except ModelyardError:
                profile = None  # the gates and workers say why; traffic is still counted
            self._profiles[release.digest] = profile
            while len(self._profiles) > KEPT:
                self._profiles.popitem(last=False)
        return self._profiles.get(release.digest)
