"""A deployment's watch as one HTML page that needs nothing beside itself: no script, no font, no request.

Hides the layout. Everything is put together as elements, never as text, so that whatever a category or a column is called stays what it is: a name.
Pure: what the API tells in, a document out. It must not judge.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, SubElement, tostring

from modelyard.cli import folding, plots
from modelyard.monitor.alerts.advice import named

if TYPE_CHECKING:
    from modelyard.client.answers import Alert, Overview, Series
    from modelyard.types import Verdict

SHOWN = 200
"""How many verdicts are shown; the API has all."""
BARS = 40
NAMED = 12
"""How many columns of one verdict are named, and how many of the alerts that are not shown."""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root {
  color-scheme: light dark; --ink: #1c2330; --soft: #667085; --line: #d0d5dd; --back: #fff; --mark: #3b6fd4;
  --pass: #147d46; --warn: #b25e09; --fail: #c4231c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ef; --soft: #98a2b3; --line: #344054; --back: #12161d; --mark: #7aa2f7; --pass: #4cc38a; --warn: #f0a04b; --fail: #ff7a70;
  }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; color: var(--soft); font-weight: 500; }
td, th { padding: .25rem .6rem .25rem 0; vertical-align: top; border-top: 1px solid var(--line); }
td { overflow-wrap: anywhere; } td.rule { min-width: 13rem; } td.number { white-space: nowrap; } td.when { min-width: 7.5rem; }
td.pass, td.warn, td.fail, td.unknown { white-space: nowrap; }
p.soft, .unknown { color: var(--soft); } .pass { color: var(--pass); } .warn { color: var(--warn); } .fail { color: var(--fail); }
.page { color: var(--back); background: var(--fail); padding: 0 .35rem; border-radius: 3px; font-size: 12px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 500; overflow-wrap: anywhere; } pre { overflow-x: auto; font-size: 13px; }
svg.plot { width: 100%; max-width: 720px; height: auto; } svg text { font-size: 11px; fill: var(--soft); }
.axis { stroke: var(--line); } .limit { stroke: var(--fail); stroke-dasharray: 4 3; }
.line { fill: none; stroke: var(--mark); stroke-width: 1.6; } .dot, .bar { fill: var(--mark); } .over { fill: var(--fail); }
"""


def page(found: Overview, *, at: float) -> bytes:
    """The document, UTF-8; `at` is when it is made (seconds since 1970)."""
    html = Element("html", {"lang": "en"})
    head = SubElement(html, "head")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    SubElement(head, "meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"})
    _say(head, "title", f"{found.name}: monitoring report")
    SubElement(head, "style").text = _STYLE
    body = SubElement(html, "body")
    _head(body, found, at)
    _alerts(body, found.alerts)
    _verdicts(body, found)
    _performance(body, found)
    _drift(body, found.verdicts)
    _slices(body, found.verdicts)
    _courses(body, "Traffic, latency and errors", [each for each in found.series if each.name in _TRAFFIC], found)
    _courses(body, "Courses of what is judged", [each for each in found.series if each.unit == "level"], found)
    _watched(body, found)
    text: str = tostring(html, encoding="unicode", method="html")
    return f"<!doctype html>\n{text}\n".encode("utf-8", "replace")


_TRAFFIC = ("requests", "p50", "p99", "errors")


def _head(body: Element, found: Overview, at: float) -> None:
    _say(body, "h1", found.name)
    version = "no version serves" if found.version is None else f"version {found.version}, {found.digest}"
    _say(
        body,
        "p",
        f"{version}; {found.requests:,} requests, {found.rows:,} rows from {plots.when(found.since)} to {plots.when(found.until)} UTC",
        "soft",
    )
    judged = "not judged yet" if found.judged_through is None else f"judged through {plots.when(found.judged_through)} UTC"
    _say(body, "p", f"{judged}; this page was made {plots.when(at)} UTC", "soft")
    pages = len(found.pages)
    firing = sum(each.state == "firing" and each.severity == "page" for each in found.alerts)
    said = f"{pages} of what is judged may wake somebody now." if pages else "Nothing that may wake somebody fails."
    if firing and not pages:
        said = f"{firing} {'page fires' if firing == 1 else 'pages fire'} still, though nothing that may wake somebody is known to fail now."
    _say(body, "p", said, "fail" if pages or firing else "pass")
    for trouble in found.trouble:
        _say(body, "p", trouble, "warn")
    if found.late:
        _say(body, "p", f"{found.late:,} requests came after their minutes were judged; reports count them.", "warn")


def _alerts(body: Element, alerts: Sequence[Alert]) -> None:
    _say(body, "h2", "Alerts")
    if not alerts:
        _say(body, "p", "There are none, and none are over of late.", "soft")
        return
    rows = [row for group in folding.alarms(alerts) for row in _alarms(group)]
    _table(body, ("state", "severity", "rule", "since (UTC)", "found", "why, and what to do"), rows)


def _alarms(group: Sequence[Alert]) -> Iterator[tuple[Any, ...]]:
    """A row for each alert; of many that are alike for the first of them, and one that names the rest."""
    for each in group[: folding.ALERTS]:
        since = plots.when(each.since) if each.resolved_at is None else f"{plots.when(each.since)} to {plots.when(each.resolved_at)}"
        colour = "fail" if each.state == "firing" else "warn" if each.state == "pending" else "pass"
        what_to_do = f"what to do: {each.advice}" if each.advice else ""
        why = "; ".join(part for part in (each.why or each.cause, what_to_do) if part)
        yield (each.state, colour), each.severity, (each.rule, "rule"), (since, "when"), each.verdict.evidence, why
    if len(group) > folding.ALERTS:
        yield group[0].state, group[0].severity, "and more", "", folding.rest(group, folding.ALERTS, NAMED), ""


def _verdicts(body: Element, found: Overview) -> None:
    _say(body, "h2", "Verdicts")
    if not found.verdicts:
        _say(body, "p", "There are none yet.", "soft")
        return
    groups = folding.folded(found.verdicts, found.pages)
    rows = [_verdict(folding.told(group), is_page=group[0].rule in found.pages) for group in groups[:SHOWN]]
    _table(body, ("", "", "rule", "found", "harm", "columns"), rows)
    if len(groups) > SHOWN:
        _say(body, "p", f"and {sum(map(len, groups[SHOWN:])):,} less important ones", "soft")
    budget = found.budget
    most = f"at most {budget.false_pages_a_month:g} false page{'' if budget.false_pages_a_month == 1 else 's'} a month"
    said = f"Alarm budget: {most}; {budget.spent:g} spent in the last 30 days, {budget.left:g} left."
    _say(body, "p", said, "soft")


def _verdict(verdict: Verdict, *, is_page: bool) -> tuple[Any, ...]:
    harm = "" if verdict.harm is None else f"{verdict.harm:.3g}"
    mark = ("PAGE", "page") if is_page else ""
    return mark, (verdict.outcome, verdict.outcome), (verdict.rule, "rule"), verdict.evidence, (harm, "number"), named(verdict.columns, most=NAMED)


def _performance(body: Element, found: Overview) -> None:
    _say(body, "h2", "Performance")
    if found.labels is None:
        _say(body, "p", "No labels have come.", "soft")
    else:
        labels = found.labels
        share = labels.matched / labels.predictions if labels.predictions else 0.0
        said = f"{labels.matched:,} of {labels.predictions:,} logged predictions have their truth ({share:.1%}); "
        _say(
            body,
            "p",
            said + f"{labels.unknown:,} labels are of no prediction; {labels.unsampled:,} are of such as were not logged, or of none.",
            "soft",
        )
        body.append(plots.bars([("completeness", share, f"{share:.1%}")], limit=1.0))
    figures = [each for each in found.series if each.unit == "" and each.name not in _TRAFFIC]
    _plots(body, figures, found)
    told = [each for each in found.verdicts if each.rule.partition(":")[0] in ("performance", "estimated_performance", "concept")]
    if told:
        _table(body, ("", "rule", "found"), [((each.outcome, each.outcome), (each.rule, "rule"), each.evidence) for each in told])


def _drift(body: Element, verdicts: Iterable[Verdict]) -> None:
    """How far each feature has moved: of each rule that is about one, its value beside its threshold, or its effect."""
    levels, effects = [], []
    for each in verdicts:
        rule, _, about = each.rule.partition(":")
        value, threshold, effect = (each.numbers.get(name) for name in ("value", "threshold", "effect"))
        if rule == "drift" and about and value is not None and threshold:
            levels.append((about, value / threshold, f"{value / threshold:.2f} of its threshold"))
        elif rule in ("shift", "drift") and about and effect is not None:
            effects.append((about, abs(effect), f"effect {effect:.3g}"))
    _say(body, "h2", "Drift by feature")
    if not levels and not effects:
        _say(body, "p", "No feature was compared.", "soft")
    for said, rows, limit in (("Evidence of what may page, 1 being an alarm", levels, 1.0), ("Effect in the window of reports", effects, None)):
        if rows:
            figure = SubElement(body, "figure")
            _say(figure, "figcaption", said)
            figure.append(plots.bars(sorted(rows, key=lambda row: -row[1])[:BARS], limit=limit))


def _slices(body: Element, verdicts: Iterable[Verdict]) -> None:
    told = [each for each in verdicts if each.rule.partition(":")[0] in ("slices", "fairness")]
    _say(body, "h2", "Slices")
    if not told:
        _say(body, "p", "None were searched.", "soft")
        return
    rows = [((each.outcome, each.outcome), (each.rule, "rule"), each.evidence, "" if each.harm is None else f"{each.harm:.3g}") for each in told]
    _table(body, ("", "rule", "found", "harm"), rows)


def _courses(body: Element, title: str, series: Sequence[Series], found: Overview) -> None:
    if series:
        _say(body, "h2", title)
        _plots(body, series, found)


def _plots(body: Element, series: Sequence[Series], found: Overview) -> None:
    grid = SubElement(body, "div", {"class": "grid"})
    for each in series:
        figure = SubElement(grid, "figure")
        _say(figure, "figcaption", each.name)
        limit = 1.0 if each.unit == "level" else None
        told = partial(_amount, unit=each.unit)
        figure.append(plots.course(each.values, span=(found.since, found.until), told=told, limit=limit))


def _watched(body: Element, found: Overview) -> None:
    _say(body, "h2", "How it is watched")
    said = json.dumps(found.settings, indent=2, ensure_ascii=False) if found.settings else "as by default"
    _say(body, "pre", said)


def _table(body: Element, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A cell is a text, or a text and its class."""
    table = SubElement(body, "table")
    top = SubElement(SubElement(table, "thead"), "tr")
    for head in heads:
        _say(top, "th", head)
    below = SubElement(table, "tbody")
    for row in rows:
        line = SubElement(below, "tr")
        for cell in row:
            text, kind = cell if isinstance(cell, tuple) else (cell, "")
            if kind == "page":
                _say(SubElement(line, "td"), "span", text, kind)
            else:
                _say(line, "td", text, kind)


def _say(parent: Element, tag: str, text: str, kind: str = "") -> None:
    SubElement(parent, tag, {"class": kind} if kind else {}).text = plots.plain(text)


def _amount(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "not a number"
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "share":
        return f"{value:.2%}"
    return f"{value:,.3g}{unit if unit == '/s' else ''}" + (" of the threshold" if unit == "level" else "")
