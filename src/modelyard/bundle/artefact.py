"""The nouns of a bundle: what goes in (Contents, Attested), what comes out (Built), and the opened, immutable view (Bundle).

Hides nothing but the members' bytes. It must not read or verify: `load.open` makes a Bundle, and only it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.bundle.card import Card
from modelyard.bundle.lock import Lock
from modelyard.bundle.manifest import Member
from modelyard.errors import NotFound
from modelyard.types import Digest, Scalar, Schema, Tolerance

if TYPE_CHECKING:
    from modelyard.types import Array


class Contents:
    """Everything under the Digest: what model, data and package versions determine. No time, name, path or figure of a machine.

    `runtime` and `profile` are structs or plain data that become JSON; `runtime` has the field `kind`. `golden` are the golden inputs, by
    schema name, tagged columns redacted. `values` are the only values that tagged columns take, by name, where the model takes no others: they stand
    in no other member but the model, so in the golden inputs such a column is the first of them in every row (missing where there is none).
    A model that is code has `parts`, its members by path (`code/…`, `files/…`), and no `model`.
    """

    __slots__ = ("card", "golden", "lock", "model", "parts", "profile", "runtime", "schema", "values")

    def __init__(
        self,
        *,
        model: bytes = b"",
        parts: Mapping[str, bytes] | None = None,
        runtime: Any,
        schema: Schema,
        lock: Lock,
        profile: Any,
        golden: Mapping[str, Array],
        card: Card,
        values: Mapping[str, tuple[Scalar, ...]] | None = None,
    ) -> None:
        self.model = model
        self.parts = dict(parts or {})
        self.runtime = runtime
        self.schema = schema
        self.lock = lock
        self.profile = profile
        self.golden = dict(golden)
        self.card = card
        self.values = dict(values or {})


class Attested:
    """What one machine found: the user's name for the model, its outputs on the golden inputs, the parity figures, the platform (CPU, threads,
    time, …), the profile of its outputs on all rows and what was learnt of its performance (a struct or plain data; None: nothing)."""

    __slots__ = ("name", "outputs", "parity", "performance", "platform", "profile")

    def __init__(
        self,
        *,
        name: str,
        outputs: Mapping[str, Array],
        parity: Any,
        platform: Mapping[str, Any],
        profile: Any = None,
        performance: Any = None,
    ) -> None:
        self.name = name
        self.outputs = dict(outputs)
        self.parity = parity
        self.platform = dict(platform)
        self.profile = {"features": ()} if profile is None else profile
        self.performance = performance


class Built(msgspec.Struct, frozen=True):
    """A sealed bundle as blobs: `digest` is the model's identity, `index` the OCI index that leads to all of `blobs`."""

    digest: Digest
    index: Digest
    blobs: dict[Digest, bytes]


class Golden:
    """Golden records: inputs as the wire delivers them, and the outputs that the packaged model gave where it was packaged."""

    __slots__ = ("inputs", "outputs")

    def __init__(self, inputs: dict[str, Array], outputs: dict[str, Array]) -> None:
        self.inputs = inputs
        self.outputs = outputs


class Bundle:
    """A verified view of a bundle: every byte was hashed and both seals were verified before this object came to be.

    It owns the members' bytes until it is dropped; whoever constructs a model from `read("model")` uses the very bytes that were
    verified. Immutable, safe to share. `strict_schema` is `schema` with the closed lists of tagged columns: checks go by it, nothing may show it.
    """

    __slots__ = ("_bytes", "attestation", "card", "digest", "golden", "index", "lock", "members", "name", "schema", "signer", "strict_schema")

    def __init__(self, *, index: Digest, digest: Digest, signer: str, members: Mapping[Member, bytes], parsed: Parsed) -> None:
        self.digest = digest
        self.index = index
        self.signer = signer
        self.members = tuple(members)
        self._bytes = {member.role: data for member, data in members.items()}
        self.name = parsed.name
        self.schema = parsed.schema
        self.strict_schema = parsed.strict_schema
        self.lock = parsed.lock
        self.card = parsed.card
        self.golden = parsed.golden
        self.attestation = parsed.attestation

    @property
    def tolerance(self) -> Tolerance:
        """How far an answer may lie from the original's, as packaged."""
        return self.card.tolerance

    def read(self, role: str) -> bytes:
        """The bytes of the member with `role` (`model`, `runtime`, `profile`, …). Raises NotFound."""
        try:
            return self._bytes[role]
        except KeyError:
            raise NotFound(f"a bundle has no member {role!r}; it has {', '.join(self._bytes)}") from None

    @property
    def parts(self) -> dict[str, bytes]:
        """The members of a model that is code, by path, in their order; empty for any other."""
        return {role: data for role, data in self._bytes.items() if "/" in role}

    def __repr__(self) -> str:
        return f"Bundle({self.name!r}, {self.digest})"


class Parsed(msgspec.Struct, frozen=True):
    """The members that a bundle shows as values. `attestation` has the keys `parity` and `platform`."""

    name: str
    schema: Schema
    strict_schema: Schema
    lock: Lock
    card: Card
    golden: Golden
    attestation: dict[str, Any]
