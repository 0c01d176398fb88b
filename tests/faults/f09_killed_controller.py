"""Fault 9: kill -9 of the control process at every failpoint of the verbs that change what serves."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.faults import probes, scene
from tests.faults.control import CONVERGED_S, Control, Reply, control
from tests.faults.judge import Control as Taken
from tests.faults.judge import Fault
from tests.faults.scene import Scene

from modelyard.types import TrafficPlan, read_plan
from serving import Home

LEAST, ASKED_S = 25, 5.0
SAMPLE, SEED = 12, 9
"""Points of each verb in the short form; the long one takes all."""
WIRED = ("quick gates", "failpoints")
OFFSETS = (0.0, 1000.0)
SPARE = "spare"
"""A model whose one version serves nothing and is deleted."""


LIMIT_S = 60.0
"""Of a verb that nobody disturbs, on a machine that may be busy: it is counted, not timed."""


class Verb(NamedTuple):
    """A change of the world: `prepare` brings about what it starts from, `ask` asks for it, `before` and `after` are the version that serves."""

    name: str
    subject: str
    prepare: Callable[[Control], None]
    ask: Callable[[Control], Reply]
    before: int | None
    after: int | None
    begins_moving: bool = False
    """Whether it changes a rollout that is under way, which goes on where the change was not written down."""
    is_deletion: bool = False
    """Whether `before` and `after` are the version of SPARE that is registered, whatever its number, and not one that serves."""

    def found(self, running: Control) -> int | None:
        """What is there now of what it changes."""
        return running.serving(self.subject) if not self.is_deletion else 1 if _spares(running) else None


def _serving(running: Control, name: str, *versions: int) -> None:
    """Have `versions` of `line` deployed as `name`, one after the other, unless they are as it stands."""
    deployment = running.ask("GET", f"/deployments/{name}")
    body = deployment.json() if deployment.status == 200 else {}
    known = [each["version"] for each in [*body.get("previous", ()), *filter(None, [body.get("current")])]]
    if known[-len(versions) :] == list(versions):
        return
    for version in versions:
        reply = running.deploy(name, f"line:{version}")
        assert reply.status in {200, 202}, reply
        assert running.settled(name) is not None, "what a verb starts from did not come about"


def _moving(running: Control, name: str) -> None:
    """Have a canary of version 2 beside version 1 at its first step, where it stays."""
    if not _is_moving(running, name):
        _serving(running, name, 1)
        steps = [{"weight": 10, "minimum_s": 3600.0, "minimum_requests": 1}, {"weight": 100}]
        reply = running.deploy(name, "line:2", strategy={"kind": "canary", "steps": steps})
        assert reply.status == 202, reply
    assert probes.wait(lambda: _is_moving(running, name), CONVERGED_S, 0.01) is not None, "the canary did not begin"


def _is_moving(running: Control, name: str) -> bool:
    """Whether the record says that the canary is under way, and every worker acts by a plan that splits the traffic."""
    reply = running.ask("GET", f"/deployments/{name}")
    if reply.status != 200 or not reply.json().get("rollout"):
        return False
    plan = read_plan(running.home.folder / "plan.json")
    return any(each.name == name and len(each.weights) == 2 for each in plan.plans) and running.acts_by(plan.sequence)


VERBS = (
    Verb("deploy", "line", lambda c: _serving(c, "line", 1), lambda c: c.deploy("line", "line:2"), 1, 2),
    Verb("rollback", "line", lambda c: _serving(c, "line", 1, 2), lambda c: c.ask("POST", "/deployments/line/rollback"), 2, 1),
    Verb("promote", "line", lambda c: _moving(c, "line"), lambda c: c.ask("POST", "/deployments/line/promote"), 1, 2, begins_moving=True),
    Verb("abort", "line", lambda c: _moving(c, "line"), lambda c: c.ask("POST", "/deployments/line/abort"), 1, 1, begins_moving=True),
    Verb("first", "other", lambda c: _gone(c, "other"), lambda c: c.deploy("other", "line:2"), None, 2),
    Verb("undeploy", "other", lambda c: _serving(c, "other", 2), lambda c: c.ask("DELETE", "/deployments/other"), 2, None),
    Verb("delete", "line", lambda c: _spare(c), lambda c: c.ask("DELETE", f"/models/{SPARE}/versions/{_spares(c)[-1]}"), 1, None, is_deletion=True),
)


def _spares(running: Control) -> list[int]:
    """The versions of SPARE that are registered."""
    reply = running.ask("GET", f"/models/{SPARE}/versions")
    assert reply.status in {200, 404}, reply
    return [each["version"] for each in reply.json()] if reply.status == 200 else []


def _spare(running: Control) -> None:
    """Have a version of SPARE, and no canary of the verbs before on its way."""
    if running.ask("GET", "/deployments/line").json().get("rollout"):
        reply = running.ask("POST", "/deployments/line/abort")
        assert reply.status in {200, 202}, reply
    if not _spares(running):
        running.home.add("line", name=SPARE, offset=2000.0)


def _gone(running: Control, name: str) -> None:
    if running.ask("GET", f"/deployments/{name}").status == 200:
        running.ask("DELETE", f"/deployments/{name}")
    assert running.settled(name) is not None, "what a verb starts from did not come about"


class Killing:
    """What was found at the points so far."""

    def __init__(self, scene_: Scene, home: Home, running: Control) -> None:
        self.points = self.between = self.late = self.lost = 0
        self.slowest_s = 0.0
        self.notes: list[str] = []
        self.verbs: Counter[str] = Counter()
        self._scene, self._home, self._running = scene_, home, running

    def at(self, verb: Verb, point: str) -> None:
        """Ask for `verb`, die at `point`, start again, and look."""
        running = self._running
        verb.prepare(running)
        generation = _generation(self._home, verb.subject)
        _sign(self._scene, point)
        reply = verb.ask(running)
        probes.wait(lambda: not running.is_alive or (reply.status and running.is_settled(verb.subject)), ASKED_S, 0.01)
        _sign(self._scene, "")
        is_reached = not running.is_alive
        if not is_reached:  # not this time: what others did was counted with it
            running.kill()
        self.points += is_reached
        self.verbs[verb.name] += is_reached
        running.start(*WIRED)
        is_told = reply.status in {200, 202}
        goes_on = verb.begins_moving and not is_told
        limit_s = 2.0 if self._scene.is_control else CONVERGED_S
        took_s = probes.wait(lambda: running.is_settled(verb.subject) or (goes_on and _is_moving(running, verb.subject)), limit_s, 0.01)
        version = verb.found(running)
        is_lost = is_told and version != verb.after
        is_between = version not in {verb.before, verb.after} or generation > (_generation(self._home, verb.subject) or generation)
        self.lost, self.between, self.late = self.lost + is_lost, self.between + is_between, self.late + (took_s is None)
        self.slowest_s = max(self.slowest_s, took_s or 0.0)
        if took_s is None or is_lost or is_between:
            self.notes.append(f"{verb.name} {point}: answered {reply.status}, serves {version}, settled {took_s}")


def run(scene_: Scene) -> None:
    home = Home(scene_.folder / "home")
    for offset in OFFSETS:
        home.add("line", offset=offset)
    with scene_.server(home) as server, control(scene_, home, starts=WIRED) as running:
        _serving(running, "line", 1)
        server.mark()
        loading = server.load(scene.line(offsets=OFFSETS), connections=4, seconds=600, rate=100.0)
        found = Killing(scene_, home, running)
        chance = random.Random(SEED)
        for verb in VERBS:
            points = _points(scene_, running, verb)
            for point in points if scene_.is_long else sorted(chance.sample(points, min(SAMPLE, len(points)))):
                if not (scene_.is_control and found.late):
                    found.at(verb, point)
            if scene_.is_control:
                break
        strays = _strays(home)
        tally = loading.end(now=True)
    scene_.item("points", found.points, LEAST, better="higher", exact=True, note="at which the control process was killed")
    scene_.item("verbs", sum(count > 0 for count in found.verbs.values()), len(VERBS), better="higher", exact=True, note=f"{dict(found.verbs)}")
    scene_.item("neither_old_nor_new", found.between, 0, exact=True, note="; ".join(found.notes[:4]))
    scene_.item("not_converged", found.late, 0, exact=True, note=f"within {CONVERGED_S:g} s; the slowest took {found.slowest_s:.2f} s")
    scene_.item("acknowledged_lost", found.lost, 0, exact=True)
    scene_.item("predicted", tally.success, 100, "%", better="higher", exact=True, note=f"of {tally.sent:,} meanwhile")
    scene_.item("left_behind", len(strays), 0, exact=True, note=f"temporary files in the home {', '.join(strays[:3])}")


def _points(scene_: Scene, running: Control, verb: Verb) -> list[str]:
    """Every point that the verb passes, found by counting."""
    verb.prepare(running)
    _sign(scene_, "?")
    reply = verb.ask(running)
    assert reply.status in {200, 202}, reply
    if running.settled(verb.subject, LIMIT_S) is None:
        raise AssertionError(f"{verb.name} did not come to its end: {running.ask('GET', f'/deployments/{verb.subject}').json()}")
    _sign(scene_, "")
    running.kill()
    running.start(*WIRED)
    log = scene_.folder / "points"
    found = [point for point in dict.fromkeys(log.read_text().split()) if ":host" not in point and ":leader" not in point]
    log.unlink()
    return found


def _sign(scene_: Scene, point: str) -> None:
    """Tell the control process at which point to end; `?`: to write them down; nothing: to live."""
    path = scene_.folder / "failpoint"
    if point:
        path.write_text(point)
    else:
        path.unlink(missing_ok=True)


def _generation(home: Home, name: str) -> int:
    """The generation of the plan in force."""
    plans: list[TrafficPlan] = [plan for plan in read_plan(home.folder / "plan.json").plans if plan.name == name]
    return plans[0].generation if plans else 0


def _strays(home: Home) -> list[str]:
    """Temporary files that nobody will take away; what a worker is writing at this moment is gone in the next."""
    found = {path for path in Path(home.folder).rglob("*.tmp") if path.is_file()}
    time.sleep(1.0)
    return sorted(path.name for path in found if path.exists())


FAULT = Fault(
    number=9,
    name="killed-controller",
    title="kill -9 of the control process at its failpoints",
    method=(
        "Deploy, rollback, promote and abort of a canary, first deploy, undeploy and delete are each run once while the calls of stores and sinks "
        "are counted (audit appends, record writes, commits, writes of the plan, and what these ask of the system); then once per point, at which "
        f"the process is killed (at {SAMPLE} of each verb's by chance; in the long form at all). Another is started at once. 100 requests a "
        "second are asked of the deployment meanwhile. The golden gate, which starts a process of its own, is left out."
    ),
    run=run,
    controls=(Taken(without="going on", misses="not_converged", text="a control process that does not go on with what its predecessor began."),),
    headline="not_converged",
    may_share=True,
)
