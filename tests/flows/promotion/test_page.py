"""The section of a promotion in the report: what got worse is listed as what got better is."""

from html.parser import HTMLParser
from typing import Any

import polars as pl
import pytest

from flows.promotion.page import promotion_section
from tasks.training.promote import PromoteConfig, decide_promotion
from tests.tasks.training.test_promote import SUMMARY, scores


def said(*frames: pl.DataFrame) -> dict[str, Any]:
    decision = decide_promotion(PromoteConfig(), scores=pl.concat(frames), summary=SUMMARY, instances=5)
    return {
        "promoted": decision.promote,
        "why": decision.because,
        "checks": [check.as_dict() for check in decision.checks],
    }


def test_datasets_that_got_worse_stand_before_those_that_got_better_with_figures() -> None:
    page = promotion_section(
        said(scores(0.05, 900, "large <1>"), scores(-0.2, 50, "small"), scores(-0.001, 50, "near"))
    )
    assert '<h2 id="h-promotion">Not promoted</h2>' in page
    worse, better = page.index("What got worse"), page.index("What got better")
    assert worse < page.index("<li>small, against the baseline: −0.200</li>") < better
    assert "<li>near, against the baseline: −0.001 (not shown: it may be chance)</li>" in page
    assert better < page.index("<li>large &lt;1&gt;, against the baseline: +0.050</li>")
    row = next(line for line in page.splitlines() if line.startswith("<tr><td>the baseline</td><td>small"))
    assert "<td>50</td><td>−0.200</td>" in row
    assert row.endswith("<td>failed</td></tr>")


def test_where_nothing_got_worse_the_page_says_so() -> None:
    page = promotion_section(said(scores(0.5, 900)))
    assert "<h3>What got worse</h3>\n<p>Nothing.</p>" in page
    assert "<li>all datasets, against the baseline: +0.500</li>" in page
    assert '<h2 id="h-promotion">Promoted</h2>' in page


@pytest.mark.parametrize("checks", [[], [{"name": "score", "passed": True, "said": "no comparison", "figure": None}]])
def test_results_without_a_comparison_and_of_earlier_versions_are_shown_without_a_table(checks: list[Any]) -> None:
    page = promotion_section({"promoted": False, "why": "a & b", "checks": checks})
    assert "<p>a &amp; b.</p>" in page
    assert "<table>" not in page


def test_the_section_is_well_formed() -> None:
    open_tags: list[str] = []

    class Nesting(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Nesting().feed(promotion_section(said(scores(0.05, 900), scores(-0.2, 50, "small"))))
    assert open_tags == []
