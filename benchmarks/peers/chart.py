"""A bar chart as SVG, on a logarithmic scale, readable on light and on dark pages. No library: a chart of ten bars is forty lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, LABELS, RIGHT, BAR, GAP, TOP, BOTTOM = 860, 190, 90, 13, 12, 64, 34
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-size: 15px; font-weight: 600 } .tick, .note { font-size: 11px; fill: #57606a }
.grid { stroke: #d0d7de } .ours { fill: #1a7f37 } .onnx { fill: #0969da } .pickle { fill: #bf8700 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .tick, .note { fill: #9da7b3 } .grid { stroke: #30363d }
.ours { fill: #3fb950 } .onnx { fill: #58a6ff } .pickle { fill: #d29922 } }
"""


class Bar(NamedTuple):
    """One bar: what it stands for (`ours`, `onnx` or `pickle`) and its value; None where there is none, with the reason."""

    kind: str
    value: float | None
    reason: str = ""


def chart(title: str, note: str, rows: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """The chart of `rows` (a label and its bars each), values above 1."""
    values = [bar.value for _, bars in rows for bar in bars if bar.value is not None]
    low = 10 ** math.floor(math.log10(min(values)))
    high = 10 ** math.ceil(math.log10(max(values)))
    span = WIDTH - LABELS - RIGHT

    def at(value: float) -> float:
        return LABELS + span * math.log10(value / low) / math.log10(high / low)

    height = TOP + sum(len(bars) * BAR + GAP for _, bars in rows) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="12" y="24">{escape(title)}</text><text class="note" x="12" y="44">{escape(note)}</text>',
    ]
    tick = low
    while tick <= high:
        x = at(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - BOTTOM + 4}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - BOTTOM + 20}" text-anchor="middle">{tick:,.0f}</text>')
        tick *= 10
    y = TOP
    for label, bars in rows:
        middle = y + len(bars) * BAR / 2 + 4
        parts.append(f'<text x="{LABELS - 10}" y="{middle:.1f}" text-anchor="end">{escape(label)}</text>')
        for bar in bars:
            if bar.value is None:
                parts.append(f'<text class="tick" x="{LABELS + 4}" y="{y + BAR - 3}">{escape(bar.reason)}</text>')
            else:
                end = max(at(bar.value), LABELS + 1)
                parts.append(f'<rect class="{bar.kind}" x="{LABELS}" y="{y}" width="{end - LABELS:.1f}" height="{BAR - 1}" rx="2"/>')
                parts.append(f'<text class="tick" x="{end + 5:.1f}" y="{y + BAR - 3}">{bar.value:,.0f}</text>')
            y += BAR
        y += GAP
    return "\n".join([*parts, "</svg>"]) + "\n"
