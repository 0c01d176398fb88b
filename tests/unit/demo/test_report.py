import io

import pytest
from rich.console import Console

from modelyard.demo import report
from modelyard.demo.releases import Release
from modelyard.demo.telling import Teller
from modelyard.demo.watching import Paged, Watched

LIVE = Release(
    version=2, is_live=True, weights=(10, 50, 100), answered={1: 900, 2: 1100}, failed=0, errors={1: 130.4, 2: 41.2}, why="serves", seconds=9.0
)
BAD = Release(
    version=3, is_live=False, weights=(10,), answered={2: 950, 3: 50}, failed=0, errors={2: 41.0, 3: 9000.0}, why="shift 0.9 [bold]", seconds=4.0
)


def month(name, error, psi, unseen=0):
    words = {"fall": unseen} if unseen else {}
    return report.Month(month=name, rows=700, demand=150.0, error=error, bias=-error / 2, shifts={"temp": psi, "hum": 0.01}, unseen=words)


@pytest.fixture
def found():
    return report.Report(
        packaged=report.Packaged(
            reference="bikes:1",
            digest="sha256:" + "0" * 64,
            title="RandomForestRegressor",
            rows=4250,
            largest_difference=1.5e-13,
            training_error=21.4,
            seconds=3.0,
        ),
        speed=report.Speed(trained_s=0.020, endpoint_s=0.0002),
        traffic=report.Traffic(requests=2100, answered=2099, refused={"503": 1}, connections=4, seconds=1.0, p50_s=0.001, p99_s=0.0034),
        months=(month("2011-07", 31.2, 1.94), month("2011-09", 37.0, 0.4, 12), month("2012-10", 133.0, 0.2, 708)),
        watched=Watched(
            hours=621,
            allowed=64.7,
            drift=Paged(
                at="2012-01-16", rule="drift:season", evidence="moved", columns=("season",), harm=0.1, cause="population shift", why="winter"
            ),
            error=Paged(at="2012-01-26", rule="concept:error", evidence="rose", columns=(), harm=4.16, cause="concept shift", why="[other] answers"),
            message="[page] bikes: concept:error\n\n  found: rose\n",
        ),
        live=report.Live(requests=2100, p50_s=0.0004, p99_s=0.002, failures={"schema_mismatch": 1}, profiled_rows=2099, shifts={"temp": 0.9}),
        releases=(LIVE, BAD),
        refusal="HTTP 422, hour: expected INT64",
        url="http://127.0.0.1:1",
        home=None,
        curl="curl -s http://127.0.0.1:1/v1/models/bikes:predict -H 'content-type: application/json' -d '{\"instances\":[{\"hour\":12}]}'",
        answer='{"predictions":[212.5]}',
        next=("make demo",),
        seconds=40.0,
    )


def told(found, *, width=80):
    teller = Teller()
    teller._made = Console(file=io.StringIO(), width=width, highlight=False)
    report.tell(found, teller)
    return teller._made.file.getvalue()


def test_the_summary_names_every_figure(found):
    text = " ".join(told(found).split())
    for figure in ("4,250 rows", "1.5e-13", "100 times faster", "2,099 of 2,100", "p99 3.4 ms", "PSI 1.9 in July 2011", "133 in October 2012"):
        assert figure in text
    assert "'fall', which training never saw and the schema allows, came 720 times since September 2011" in text
    assert "status counted 2,100 answers and 1 refused; p50 0.40 ms, p99 2.00 ms" in text
    assert "HTTP 422" in text


def test_the_alarm_is_told_and_shown_as_it_is_delivered(found):
    text = told(found)
    assert "[page] bikes: concept:error" in text and "  found: rose" in text
    flat = " ".join(text.split())
    assert (
        "somebody is woken on 2012-01-26: concept:error, when the error was +416% beside that on the days held back; 621 hours after the first"
        in flat
    )
    assert report.woken(found.watched)[1] == "[dim]by the inputs on 2012-01-16: drift:season; concept shift: \\[other] answers[/dim]"


def test_a_line_to_copy_stays_one_line(found):
    assert found.curl in told(found, width=60).splitlines()


def test_every_month_has_its_row(found):
    text = told(found)
    assert [name for name in ("2011-07", "2011-09", "2012-10") if name in text] == ["2011-07", "2011-09", "2012-10"]


def test_nothing_is_cut_at_eighty_columns(found):
    assert "…" not in told(found)


def test_releases_are_told_with_what_became_of_them(found):
    text = " ".join(told(found).split())
    assert "version 2 went live by 10 → 50 → 100 %, 0 requests failed meanwhile" in text
    assert "version 3 went back by itself after 50 of 1,000 requests, 0 failed" in text
    first, second = report.went_live(LIVE)
    assert "10 → 50 → 100 %" in first and "130 bikes an hour by version 1, 41 by version 2" in second
    first, second = report.sent_back(BAD)
    assert "sent back at 10 %" in first and "\\[bold]" in second
