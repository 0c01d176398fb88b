"""The laws of the registry: numbers only rise, a reference finds what was added, gc never takes what is referred to."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelyard import registry
from modelyard.bundle import Built
from modelyard.bundle.base import digest_of
from modelyard.errors import Conflict, NotFound

NAMES = st.sampled_from(["churn", "fraud"])


class Home(RuleBasedStateMachine):
    """A home beside a plain model of what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.home = registry.open(Path(self.folder.name))
        self.versions: dict[str, dict[int, bytes]] = {"churn": {}, "fraud": {}}
        self.latest = {"churn": 0, "fraud": 0}
        self.aliases: dict[str, dict[str, int]] = {"churn": {}, "fraud": {}}

    @rule(name=NAMES, data=st.binary(min_size=1, max_size=1))
    def add(self, name: str, data: bytes) -> None:
        digest = digest_of(data)
        added = self.home.add(name, Built(digest, digest, {digest: data, digest_of(b"shared"): b"shared"}))
        known = [number for number, held in self.versions[name].items() if held == data]
        assert added.version == (known[0] if known else self.latest[name] + 1)
        self.versions[name][added.version] = data
        self.latest[name] = max(self.latest[name], added.version)

    @precondition(lambda self: any(self.versions.values()))
    @rule(data=st.data(), alias=st.sampled_from(["champion", "other"]), remove=st.booleans())
    def alias(self, data: st.DataObject, alias: str, remove: bool) -> None:
        name, number = data.draw(st.sampled_from([(name, number) for name, held in self.versions.items() for number in held]))
        self.home.set_alias(name, alias, None if remove else number)
        self.aliases[name].pop(alias, None)
        if not remove:
            self.aliases[name][alias] = number

    @rule(name=NAMES, number=st.integers(1, 5))
    def delete(self, name: str, number: int) -> None:
        try:
            self.home.delete(name, number)
        except NotFound:
            assert number not in self.versions[name]
        except Conflict:
            assert number in self.aliases[name].values()
        else:
            assert number not in self.aliases[name].values()
            del self.versions[name][number]

    @rule()
    def gc(self) -> None:
        self.home.gc()
        held = {digest_of(data) for versions in self.versions.values() for data in versions.values()}
        assert set(self.home.blobs.list()) == (held | {digest_of(b"shared")} if held else set())

    @rule()
    def restart(self) -> None:
        self.home.close()
        self.home = registry.open(Path(self.folder.name))

    @invariant()
    def every_reference_finds_its_version(self) -> None:
        for name, versions in self.versions.items():
            for number, data in versions.items():
                assert self.home.resolve(f"{name}:{number}").digest == digest_of(data)
                assert self.home.resolve(f"{name}@{digest_of(data)}").version == number
                assert self.home.blobs.has(digest_of(data))
            if versions:
                assert self.home.resolve(name).version == self.aliases[name].get("champion", max(versions))

    def teardown(self) -> None:
        self.home.close()
        self.folder.cleanup()


Home.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestHome = Home.TestCase
