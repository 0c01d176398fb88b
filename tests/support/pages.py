"""A page of `monitor report`, read as a browser reads it, and an overview in which every name is hostile."""

from __future__ import annotations

from html.parser import HTMLParser

from modelyard.client.answers import Account, Alert, Budget, Overview, Received, Series
from modelyard.types import Digest, Verdict

HOSTILE = (
    "<script>document.title='caught'</script>",
    '"><img src=x onerror="document.title=\'caught\'">',
    "</style><svg/onload=alert(1)>",
    "]]><!-- -->",
    "a&b\x00\x1b[31m\ud800\u202e",
    "javascript:alert(1)",
    "https://example.com/x.js",
)


class Read(HTMLParser):
    """What a document holds: its elements with their attributes, and its texts."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def overview(*names: str) -> Overview:
    """A deployment of which everything there is to tell is told, about columns and categories of these names."""
    verdicts = [Verdict(outcome="fail", rule="drift", evidence="moved", numbers={"value": 5.0, "threshold": 2.0}, harm=0.02)]
    for place, name in enumerate(names):
        numbers = {"value": 1.0 + place, "threshold": 4.0, "effect": 0.1 * place}
        for rule in ("drift", "shift", "quality", "slices", "performance"):
            outcome = ("fail", "warn", "pass", "unknown")[place % 4]
            verdicts.append(Verdict(outcome=outcome, rule=f"{rule}:{name}", evidence=f"{name} is so", numbers=numbers, columns=(name,), harm=0.01))  # type: ignore[arg-type]
    alerts = tuple(
        Alert(
            id=str(place),
            deployment="line",
            rule=verdict.rule,
            severity="page",
            state=state,
            verdict=verdict,
            since=60.0,
            advice=names[0],
            why=names[-1],
        )
        for place, (verdict, state) in enumerate(zip(verdicts[1:4], ("firing", "pending", "resolved"), strict=True))
    )
    return Overview(
        name="line",
        version=3,
        digest=Digest("sha256:" + "1" * 64),
        since=1_800_000_000.0,
        until=1_800_086_400.0,
        budget=Budget(false_pages_a_month=1.0, spent=0.5, left=0.5),
        requests=1234,
        rows=1234,
        judged_through=1_800_086_340.0,
        judged_at=1_800_086_361.0,
        verdicts=tuple(verdicts),
        pages=("drift",),
        series=(
            Series(name="requests", unit="/s", values=(1.0, 2.0, None, 4.0)),
            Series(name="p99", unit="s", values=(0.001, None, 2.5, None)),
            Series(name="errors", unit="share", values=(0.0, 0.5, 0.25, 0.0)),
            Series(name="drift", unit="level", values=(0.1, 0.5, 1.5, 0.2)),
            *(Series(name=f"performance:{name}", unit="", values=(None, 0.8, 0.7, 0.75)) for name in names[:2]),
            Series(name="nothing", unit="", values=(None, None)),
        ),
        late=7,
        labels=Account(labels=20, matched=10, unsampled=5, unknown=5, predictions=40, received=Received()),
        alerts=alerts,
        trouble=(f"3 rows of {names[0]} could not be kept",),
        settings={"ignore": list(names)},
    )
