"""What the demo found, as one value, and how it is shown at the end.

Hides the layout of tables and the words of the summary. It measures nothing: every figure comes in a Report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from modelyard.demo.releases import Release
from modelyard.demo.watching import Watched

if TYPE_CHECKING:
    from rich.table import Table

    from modelyard.demo.telling import Teller

TITLE = "Month by month: mean error in bikes an hour, and how far inputs are from training"
BARS = "▁▂▃▄▅▆▇█"
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")


class Packaged(msgspec.Struct, frozen=True, kw_only=True):
    """What packaging gave. `largest_difference` is between scikit-learn's answers and the served model's, in bikes an hour."""

    reference: str
    digest: str
    title: str
    rows: int
    largest_difference: float
    training_error: float
    seconds: float


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction of one row, medians: by the trained pipeline in process, and by the endpoint over HTTP at one connection."""

    trained_s: float
    endpoint_s: float

    @property
    def ratio(self) -> float:
        """How many times faster the endpoint answers."""
        return self.trained_s / self.endpoint_s


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """The replay as the client saw it. `refused` counts what was not answered, by status or reason."""

    requests: int
    answered: int
    refused: dict[str, int]
    connections: int
    seconds: float
    p50_s: float
    p99_s: float


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What `modelyard status` said of the deployment at the end: the servers' own counts, waits and profile (PSI per input against training)."""

    requests: int
    p50_s: float | None
    p99_s: float | None
    failures: dict[str, int]
    profiled_rows: int
    shifts: dict[str, float]


class Month(msgspec.Struct, frozen=True, kw_only=True):
    """One month: mean demand, mean absolute error and bias (prediction minus label) in bikes an hour, and PSI per input against training.

    `unseen` counts the rows per word that training never saw.
    """

    month: str
    rows: int
    demand: float
    error: float
    bias: float
    shifts: dict[str, float]
    unseen: dict[str, int]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `live` is what `modelyard status` said of the deployment at the end; `answer` what `curl` was answered."""

    packaged: Packaged
    speed: Speed
    traffic: Traffic
    months: tuple[Month, ...]
    watched: Watched
    live: Live
    releases: tuple[Release, ...]
    refusal: str
    url: str
    home: str | None
    curl: str
    answer: str
    next: tuple[str, ...]
    seconds: float


def tell(report: Report, teller: Teller) -> None:
    """Show the months and the summary."""
    from rich.markup import escape

    teller.say()
    teller.say(_months(report))
    teller.say(_summary(report))
    teller.say("[bold]The alert, as it is delivered[/bold]")
    teller.say(escape(report.watched.message.rstrip()))
    teller.say()
    stopped = "" if report.home else "  [dim](this endpoint has stopped; KEEP=1 make demo leaves one running)[/dim]"
    teller.say(f"[bold]Ask it yourself[/bold]{stopped}")
    teller.say(escape(report.curl), wrap=False)
    teller.say(f"[dim]{escape(report.answer)}[/dim]", wrap=False)
    teller.say()
    teller.say("[bold]What to try next[/bold]")
    for line in report.next:
        teller.say(f"  {line}", wrap=False)


def _months(report: Report) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=TITLE, title_style="bold", title_justify="left")
    table.add_column("month", no_wrap=True)
    for name in ("requests", "bikes/h", "error", "bias"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("inputs moved most (PSI), new words", overflow="fold")
    worst = max(month.error for month in report.months)
    trained = report.packaged.training_error
    table.add_row("training", f"{report.packaged.rows:,}", "", f"{trained:.0f}", "", _bar(trained, worst), "error on hours out of bag", style="dim")
    for month in report.months:
        table.add_row(
            month.month,
            f"{month.rows:,}",
            f"{month.demand:.0f}",
            f"{month.error:.0f}",
            f"{month.bias:+.0f}",
            _bar(month.error, worst),
            _moved(month),
        )
    return table


def _bar(value: float, top: float) -> str:
    share = value / top if top else 0.0
    colour = "green" if share < 0.34 else "yellow" if share < 0.67 else "red"
    return f"[{colour}]{BARS[min(len(BARS) - 1, int(share * len(BARS)))]}[/{colour}]"


def _moved(month: Month) -> str:
    top = sorted(month.shifts.items(), key=lambda item: -item[1])[:2]
    cells = [f"{name} [{'red' if psi >= 0.25 else 'yellow' if psi >= 0.1 else 'green'}]{psi:.2f}[/]" for name, psi in top]
    cells += [f"[magenta]{count:,} {word}[/magenta]" for word, count in month.unseen.items()]
    return "  ".join(cells)


def _summary(report: Report) -> Table:
    from rich.markup import escape
    from rich.table import Table

    packaged, speed, traffic, months = report.packaged, report.speed, report.traffic, report.months
    most = max(((month, name, psi) for month in months for name, psi in month.shifts.items()), key=lambda item: item[2])
    worst = max(months, key=lambda month: month.error)
    lines = [
        ("Parity", f"{packaged.rows:,} rows; largest difference from scikit-learn: {difference(packaged.largest_difference)}"),
        (
            "Speed",
            f"[bold]{speed.ratio:,.0f} times faster[/bold]: one prediction takes {speed.endpoint_s * 1000:.2f} ms over HTTP, "
            f"{speed.trained_s * 1000:.1f} ms in scikit-learn without a network",
        ),
        (
            "Traffic",
            f"{traffic.answered:,} of {traffic.requests:,} requests answered, {traffic.answered / traffic.seconds:,.0f} a second on "
            f"{traffic.connections} connections; p50 {traffic.p50_s * 1000:.1f} ms, p99 {traffic.p99_s * 1000:.1f} ms",
        ),
        ("Live", _live(report.live)),
        ("Inputs", f"{most[1]} moved most: PSI {most[2]:.1f} in {named(most[0].month)} (0.25 is much){_new(months)}"),
        (
            "Error",
            f"{packaged.training_error:.0f} bikes an hour in training, {months[0].error:.0f} in {named(months[0].month)}, "
            f"[bold]{worst.error:.0f} in {named(worst.month)}[/bold], when demand had outgrown the model: time to retrain",
        ),
        ("Alarm", f"{woken(report.watched)[0]}; {report.watched.hours:,} hours after the first"),
        ("Refused", escape(report.refusal)),
        ("Releases", "; ".join(_released(each) for each in report.releases)),
    ]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for title, text in lines:
        table.add_row(title, text)
    table.add_row("", "")
    return table


def woken(watched: Watched) -> tuple[str, ...]:
    """When somebody would have been woken in 2012, and by what, in a line; then when by the inputs alone, and what explains it."""
    from rich.markup import escape

    error, drift = watched.error, watched.drift
    harm = "" if error.harm is None else f", when the error was {error.harm:+.0%} beside that on the days held back"
    return (
        f"watched from February 2012 on, somebody is woken on {error.at}: {escape(error.rule)}{harm}",
        f"[dim]by the inputs on {drift.at}: {escape(drift.rule)}; {escape(error.cause or drift.cause)}: {escape(error.why or drift.why)}[/dim]",
    )


def went_live(release: Release) -> tuple[str, ...]:
    """A release that has earned the traffic, in a line, and what it was worth."""
    before = min(release.errors)
    return (
        f"version {release.version}, trained a year later, took {_path(release)} of the traffic in steps; {_told(release)}",
        f"[dim]error on hours that neither saw: {release.errors[before]:.0f} bikes an hour by version {before}, "
        f"{release.errors[release.version]:.0f} by version {release.version}[/dim]",
    )


def sent_back(release: Release) -> tuple[str, ...]:
    """A release that was sent back by itself, and why."""
    from rich.markup import escape

    return (
        f"version {release.version}, trained on wrong labels by mistake, was sent back at {_path(release)}; {_told(release)}",
        f"[dim]{escape(release.why)}[/dim]",
    )


def _path(release: Release) -> str:
    return " → ".join(map(str, release.weights)) + " %"


def _told(release: Release) -> str:
    return f"{sum(release.answered.values()):,} requests meanwhile, {release.failed} failed"


def _released(release: Release) -> str:
    if release.is_live:
        return f"version {release.version} went live by {_path(release)}, {release.failed} requests failed meanwhile"
    got = release.answered.get(release.version, 0)
    return f"version {release.version} went back by itself after {got:,} of {sum(release.answered.values()):,} requests, {release.failed} failed"


def _new(months: tuple[Month, ...]) -> str:
    """The word that training never saw and that came most, since when and how often; empty when none came."""
    totals: dict[str, int] = {}
    for month in months:
        for word, count in month.unseen.items():
            totals[word] = totals.get(word, 0) + count
    if not totals:
        return ""
    word = max(totals, key=lambda key: totals[key])
    since = next(month.month for month in months if word in month.unseen)
    return f"; '{word}', which training never saw and the schema allows, came {totals[word]:,} times since {named(since)}"


def _live(live: Live) -> str:
    waits = f"; p50 {live.p50_s * 1000:.2f} ms, p99 {live.p99_s * 1000:.2f} ms inside the server" if live.p50_s and live.p99_s else ""
    return f"modelyard status counted {live.requests:,} answers and {sum(live.failures.values())} refused{waits}"


def difference(bikes: float) -> str:
    """How far answers lie apart, in words."""
    return f"{bikes:.1e} bikes an hour" if bikes else "none, to the last bit"


def named(month: str) -> str:
    """`2011-07` as `July 2011`."""
    year, _, number = month.partition("-")
    return f"{MONTHS[int(number) - 1]} {year}"
