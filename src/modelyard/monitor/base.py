"""The port of everything that judges what was seen of a deployment, and the values that it is handed.

Hides nothing. A detector is a pure function: what it must remember between turns it gives out as bytes and is handed again, so that whoever judges
after a restart, or on another host, goes on where the last one stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from modelyard.events import Use
from modelyard.monitor.settings import Monitored

if TYPE_CHECKING:
    from modelyard.events import Failures
    from modelyard.monitor.estimate import Learnt
    from modelyard.monitor.profile import Profile
    from modelyard.types import Array, Digest, Schema, Verdict

MINUTE_S = 60


class Minute(NamedTuple):
    """What all workers and replicas saw of one version in one closed minute that begins at `start` (seconds since 1970, UTC).

    `counts` is the vector of the profile (`monitor.profile.filled` reads it), None where no row was profiled; nobody may
    change it. `use` is what serving it took. A minute without traffic has no Minute. What is long past is kept by the hour or the day (`span_s`).
    """

    start: int
    version: int
    digest: Digest
    requests: int
    rows: int
    latencies: Mapping[int, int]
    failures: Mapping[str, Failures]
    dropped: Mapping[str, int]
    counts: Array | None
    use: Use = Use()
    span_s: int = MINUTE_S


class Labelled(NamedTuple):
    """Predictions whose truth has come, a row each, in the order in which they were answered. Classes by their place in the schema.

    `times` are of the answers, seconds since 1970; `probability` [n, classes] is empty where there is none. `numbers` count the predictions whose
    truth was found, in the order in which it was, from 1; a truth that is corrected keeps its number. Without them rows are known by their times.
    `answered` are the predictions of each hour, labelled or not, by the hour's beginning; empty where nobody counted.
    """

    times: Array
    truth: Array
    predicted: Array
    probability: Array
    numbers: Array | None = None
    answered: Mapping[int, int] = {}


class Logged(NamedTuple):
    """Rows of the prediction log whose inputs were sampled too, in the order in which they were answered.

    `times` are of the answers, seconds since 1970; `inputs` and `outputs` named arrays with the rows first, tagged inputs as they were logged.
    `truth` is as of Labelled, but -1 (of a number: NaN) for each row whose label has not come; None where none has.
    """

    times: Array
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    truth: Array | None = None


class Reference(NamedTuple):
    """What live data of one version is held against, as its bundle tells it.

    `importance` is each input feature's share of the answer, by its name in the profile (they sum to 1; empty: unknown, so that all count alike);
    `quality` the figures on the reference rows; `learnt` all that the bundle carries of its performance (None: an older bundle, or none).
    """

    digest: Digest
    schema: Schema
    profile: Profile
    importance: Mapping[str, float]
    quality: Mapping[str, float]
    learnt: Learnt | None = None

    @property
    def promised(self) -> Mapping[str, float]:
        """The figures that live ones are held to: none that are known to be of rows on which the model may have been trained, for they flatter."""
        return self.quality if self.learnt is None or self.learnt.is_held_out else {}


class Evidence(NamedTuple):
    """What one turn hands to a detector. `fresh` are the minutes that it has not been handed yet, oldest first; `recent` those of the window that
    reports look at, `fresh` among them. `labelled` are the labelled predictions of the last weeks; `false_pages` is how often a month at most this
    detector may page with nothing wrong, `now` the time of the turn. `logged` are the sampled rows of the recent window; `settings` are the
    deployment's, and columns to ignore have no importance.
    """

    name: str
    reference: Reference
    fresh: Sequence[Minute]
    recent: Sequence[Minute]
    labelled: Labelled | None
    false_pages: float
    now: float
    logged: Logged | None = None
    settings: Monitored = Monitored()


class Judged(NamedTuple):
    """A detector's verdicts and what it is to be handed the next time. Nothing to say is a verdict too: `unknown`, with why."""

    verdicts: tuple[Verdict, ...]
    state: bytes


class Detector(Protocol):
    """Judges one side of what was seen. Pure; one instance serves any number of deployments.

    `rule` begins the rule of each of its verdicts (`drift`, or `drift:age`). One that `pages` may wake somebody and has a share in the alarm budget;
    the others only report.
    """

    @property
    def rule(self) -> str: ...

    @property
    def pages(self) -> bool: ...

    def judge(self, evidence: Evidence, state: bytes) -> Judged:
        """Verdicts on `evidence`; `state` is what the last turn gave out, empty at the first. State of another release, or none of ours, begins anew
        and says so. Never raises for what data may hold.
        """
        ...
