"""Courses and bars as SVG, for a page that needs nothing beside itself.

Hides scales and how gaps are drawn. Pure; elements and not text, so that a name can never become markup.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement

WIDTH, HEIGHT = 640, 132
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 18, 20
_BAR = 22
_LABEL = 220
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def course(values: Sequence[float | None], *, span: tuple[float, float], told: Callable[[float], str], limit: float | None = None) -> Element:
    """A line through equal steps of a time (seconds since 1970); where nothing was measured it is broken. `limit` is drawn across."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    high = max([*known, limit or 0.0], default=0.0)
    low = min([0.0, *known])
    height = high - low or 1.0
    svg = _svg(HEIGHT)
    step = (WIDTH - _LEFT - _RIGHT) / max(len(values), 1)
    bottom = HEIGHT - _BOTTOM

    def x(place: float) -> float:
        return _LEFT + step * place

    def y(value: float) -> float:
        return bottom - (value - low) / height * (bottom - _TOP)

    _line(svg, (_LEFT, bottom), (WIDTH - _RIGHT, bottom), "axis")
    if limit is not None:
        _line(svg, (_LEFT, y(limit)), (WIDTH - _RIGHT, y(limit)), "limit")
    for run in _runs(values):
        points = [(x(place + 0.5), y(value)) for place, value in run]
        if len(points) == 1:  # a line of one point is nothing to see
            SubElement(svg, "circle", {"cx": _n(points[0][0]), "cy": _n(points[0][1]), "r": "2", "class": "dot"})
        else:
            SubElement(svg, "polyline", {"points": " ".join(f"{_n(a)},{_n(b)}" for a, b in points), "class": "line"})
    _text(svg, _LEFT, _TOP - 6, f"largest {told(max(known))}" if known else "nothing was measured")
    for at, anchor, where in ((span[0], "start", _LEFT), (span[1], "end", WIDTH - _RIGHT)):
        _text(svg, where, HEIGHT - 6, when(at), anchor)
    return svg


def bars(rows: Sequence[tuple[str, float, str]], *, limit: float | None = None) -> Element:
    """A bar for each label, as long as its value is beside the largest (or `limit`, which is drawn across), and what is said of it."""
    svg = _svg(max(1, len(rows)) * _BAR + 4)
    most = max([value for _, value, _ in rows if math.isfinite(value)] + [limit or 0.0], default=0.0) or 1.0
    room = WIDTH - _LABEL - 150
    for place, (label, value, said) in enumerate(rows):
        top = place * _BAR + 4
        length = room * min(max(value, 0.0), most) / most if math.isfinite(value) else room
        _text(svg, _LABEL - 8, top + 12, label if len(label) <= 34 else label[:33] + "…", "end")
        is_over = limit is not None and value >= limit
        size = {"x": _n(_LABEL), "y": _n(top), "width": _n(max(length, 1.0)), "height": _n(_BAR - 8)}
        SubElement(svg, "rect", {**size, "class": "over" if is_over else "bar"})
        _text(svg, _LABEL + max(length, 1.0) + 6, top + 12, said)
    if limit is not None and rows:
        at = _LABEL + room * limit / most
        _line(svg, (at, 0), (at, len(rows) * _BAR + 4), "limit")
    return svg


def when(at: float) -> str:
    """A time (seconds since 1970) as a person reads it, UTC."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return "no time"


def plain(text: str) -> str:
    """`text` without what no document may hold, nor what would let it be read in another order."""
    return _ODD.sub("\ufffd", text)


def _runs(values: Sequence[float | None]) -> Iterator[list[tuple[int, float]]]:
    run: list[tuple[int, float]] = []
    for place, value in enumerate(values):
        if value is not None and math.isfinite(value):
            run.append((place, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _svg(height: int) -> Element:
    return Element("svg", {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "class": "plot"})


def _line(svg: Element, one: tuple[float, float], other: tuple[float, float], kind: str) -> None:
    (x1, y1), (x2, y2) = one, other
    SubElement(svg, "line", {"x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2), "class": kind})


def _text(svg: Element, x: float, y: float, said: str, anchor: str = "start") -> None:
    SubElement(svg, "text", {"x": _n(x), "y": _n(y), "text-anchor": anchor}).text = plain(said)


def _n(value: float) -> str:
    return f"{value:.1f}"
