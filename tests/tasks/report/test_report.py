"""The report page: complete, escaped, self-contained, and the same bytes for the same tables."""

import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

from tasks import schemas
from tasks.formatting import clip, duration
from tasks.report import report as report_module
from tasks.report.parts import scores as scores_module
from tasks.report.report import ReportConfig, report
from tasks.report.summary import say_people
from tests.tasks.records import mutable_records
from tests.tasks.report.tables import empty_tables, rich_tables, rows, summed, toy_tables
from tests.tasks.settings import settings_of

HOSTILE = '<script>alert("x")</script> \u202egnp.exe & \x00 \'"><img src=http://evil.example/x>'
VOID = {"meta", "link", "br", "img", "hr", "input"}


def render(out: Path, tables: dict[str, pl.DataFrame], **settings: Any) -> str:
    out.mkdir(exist_ok=True)
    config = ReportConfig(**settings)
    made = summed(tables, config.tiers, config.reads, config.examples)
    assert report(config, out=out, **made) == {}
    return (out / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects the tags and the text of a page, and holds its nesting to be right."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data


def test_the_summary_holds_what_the_terminal_prints(tmp_path: Path) -> None:
    render(tmp_path, toy_tables())
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {name: value for name, value in summary.items() if name not in ("tiers", "conclusions", "data")} == {
        "queries": 3,
        "passages": 4,
        "candidates": 4,
        "verdicts": {"relevant": 1, "not_relevant": 1, "unsure": 1, "unparsed": 1},
        "false_negatives": {"share": 0.25, "low": 0.011142, "high": 0.859786},
        "warnings": [],
        "known_false_negatives": 2,
        "known_found": 1,
        "known_recall": {"value": 0.5, "low": 0.1, "high": 0.9},
        "known_precision": {"value": 1.0, "low": 0.2, "high": 1.0},
        "found": 1,
        "llm_calls": 2,
        "ndcg10": {"default": 0.5, "relabel": 0.75},
        "rejects": {
            "rows_read": None,
            "rows_kept": None,
            "lost": 2,
            "by_reason": {"broken_json": 2},
            "by_choice": {},
            "notes": {},
        },
        "windows": [],
    }
    assert summary["tiers"][0]["tier"] == "cascade"
    assert len(summary["conclusions"]) == 5


def test_the_page_shows_the_same_numbers_as_the_summary(tmp_path: Path) -> None:
    text = " ".join(Page(render(tmp_path, toy_tables())).text.split())
    assert "1 of 4 candidate negatives was judged relevant." in text
    assert "1 of 2" in text
    assert "0.500 → 0.750" in text
    assert "1 min 15 s" in text
    assert "broken json" in text


def test_what_people_say_is_a_table_and_a_conclusion_where_anybody_labelled_and_nothing_where_nobody_did(
    tmp_path: Path,
) -> None:
    without = render(tmp_path / "a", toy_tables())
    assert render(tmp_path / "b", toy_tables() | {"people": schemas.PEOPLE.empty()}) == without
    figures = (0.5, 0.2, 0.7, 0.8, 0.6, 0.9, None, None, None)
    people = rows(schemas.PEOPLE, ("cascade", 30, 4, 2, 28, *figures), ("llm", 20, 1, 0, 0, *[None] * 9))
    page = Page(render(tmp_path / "c", toy_tables() | {"people": people}))
    assert "How each tier agrees with people" in page.text
    assert "People decided 30 of the pairs; on 4 of them the judges had said the opposite" in page.text
    assert "kappa 0.50 (0.20 to 0.70), precision 80% (60% to 90%), 95% intervals" in page.text
    summary = json.loads((tmp_path / "c" / "summary.json").read_text())
    assert summary["people"] == people.to_dicts()
    assert "Too few of them were drawn" in say_people(rows(schemas.PEOPLE, ("cascade", 3, 0, 0, 0, *[None] * 9)))[0]


def test_empty_tables_make_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    text = " ".join(Page(render(tmp_path, empty_tables())).text.split())
    for sentence in (
        "No candidates were judged.",
        "Not evaluated: no model was scored on held-out queries.",
        "No known pairs among the candidates",
        "No costs were recorded.",
        "Nothing was relabelled, so there is nothing to show.",
        "Nothing: every input row was used.",
        "The configuration was not recorded on this page.",
    ):
        assert sentence in text
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["ndcg10"] == {"default": None, "relabel": None}


@pytest.mark.parametrize("missing", sorted(empty_tables()))
def test_any_single_table_may_be_empty(tmp_path: Path, missing: str) -> None:
    Page(render(tmp_path, toy_tables() | {missing: empty_tables()[missing]}))


def test_scores_of_one_treatment_alone_are_shown_without_a_comparison(tmp_path: Path) -> None:
    tables = toy_tables()
    alone = tables["scores"].filter(pl.col("model") != "relabel")
    assert not alone.is_empty()
    assert "Does it help" in render(tmp_path, {**tables, "scores": alone})


def test_hostile_text_stays_text_everywhere(tmp_path: Path) -> None:
    tables = toy_tables(HOSTILE)
    tables["rejects"] = rows(schemas.REJECTS, (HOSTILE, HOSTILE, HOSTILE, HOSTILE))
    tables["costs"] = rows(schemas.COSTS, (HOSTILE, 1, 1.0, 1, 1))
    for name in (
        "queries",
        "passages",
        "positives",
        "candidates",
        "similarity",
        "llm_verdicts",
        "decisions",
        "edits",
        "scores",
    ):
        tables[name] = tables[name].with_columns(dataset=pl.lit(HOSTILE))
    html = render(
        tmp_path, tables, title=HOSTILE, configuration=HOSTILE, command=HOSTILE, versions={HOSTILE: HOSTILE}
    )  # fmt: skip
    page = Page(html)
    assert not {"script", "img", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert page.text.count('<script>alert("x")</script>') >= 10
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "\x00" not in html
    bidi = [
        line
        for line in html.splitlines()
        if "\u202e" in line and not any(t in line for t in ("<bdi", "<title", "<pre", "<li><b"))
    ]
    assert bidi == []


def test_the_page_asks_for_nothing_from_outside(tmp_path: Path) -> None:
    html = render(tmp_path, toy_tables())
    for tag, attributes in Page(html).tags:
        for name in ("src", "href", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:,")), (tag, value)
    for word in ("@import", "url(", "http:", "https:"):
        assert word not in html
    assert "default-src 'none'" in html


def test_the_same_tables_give_the_same_bytes_in_any_order_of_rows(tmp_path: Path) -> None:
    tables = toy_tables()
    turned = {name: frame.reverse() for name, frame in tables.items()}
    one, two = render(tmp_path / "one", tables), render(tmp_path / "two", turned)
    assert one == two


def test_every_plot_is_well_formed_and_named(tmp_path: Path) -> None:
    html = render(tmp_path, toy_tables())
    plots_found = [part.split("</svg>")[0] + "</svg>" for part in html.split("<svg ")[1:]]
    assert len(plots_found) >= 7
    for body in plots_found:
        root = ElementTree.fromstring("<svg " + body)
        assert root.get("aria-label") or root.get("aria-hidden") == "true"


def test_tables_have_captions_and_headings_do_not_skip_a_level(tmp_path: Path) -> None:
    tags = [tag for tag, _ in Page(render(tmp_path, toy_tables())).tags]
    assert tags.count("table") == tags.count("caption")
    levels = [int(tag[1]) for tag in tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_examples_are_limited_and_their_texts_cut(tmp_path: Path) -> None:
    tables = toy_tables("word " * 300)
    assert "<article" not in render(tmp_path, tables, examples=0)
    html = render(tmp_path, tables, examples=1, example_chars=50)
    assert html.count("<article") == 1
    assert "word " * 12 not in html
    assert "[…]" in html


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(ReportConfig) == {
        "title": "Curation report",
        "configuration": "",
        "command": "",
        "versions": {},
        "max_false_negatives": (7, ">=0"),
        "tiers": ("llm",),
        "warn_shares": {},
        "kinship": (),
        "rows_read": None,
        "rows_kept": None,
        "reads": None,
        "decided": "",
        "pool_depth": None,
        "examples": (6, ">=0"),
        "example_chars": (480, ">=40"),
        "datasets": (20, ">=1"),
    }


def test_no_section_of_a_page_with_everything_changes_by_a_byte(tmp_path: Path) -> None:
    """Pages are artifacts: a section that is meant to change needs a new version of the stage, and its digest here."""
    settings = {"tiers": ("llm", "strong"), "max_false_negatives": 2, "datasets": 2, "examples": 2, "example_chars": 40}
    html = render(tmp_path, rich_tables(), **settings)
    sections = re.findall(r'<section id="(\w+)".*?</section>', html, re.DOTALL)
    found = re.finditer(r'<section id="\w+".*?</section>', html, re.DOTALL)
    digests = [hashlib.sha256(match[0].encode()).hexdigest()[:16] for match in found]
    assert dict(zip(sections, digests, strict=True)) == {
        "conclusions": "5d4a4476fbf9b46a",
        "found": "e2cacfc9618534d0",
        "judges": "4a4b0e5684a010f3",
        "training": "feac848f84bb1abd",
        "examples": "7b152905f02985dc",
        "cost": "ddd297d0158f2a03",
        "data": "350158fd8602cc34",
        "rejects": "5da6eb48e1be24ab",
        "reproduce": "47c484447adf240c",
    }


@pytest.mark.parametrize(
    ("text", "length", "shown"),
    [
        ("word " * 3, 15, "word " * 3),
        ("aaaa bbbb cccc", 9, "aaaa bbbb […]"),
        ("aaaa bbbb cccc", 8, "aaaa […]"),
        ("a bbbbbbbbbbbb", 8, "a bbbbbb […]"),
        ("aaaa bbbb", 7, "aaaa […]"),
    ],
)
def test_a_long_text_is_cut_after_a_word_of_its_second_half(text: str, length: int, shown: str) -> None:
    assert clip(text, length) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"), (0.0999, "<0.1 s"), (0.1, "0.1 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (3599, "59 min 59 s"),
        (3600, "1 h 0 min"), (7325, "2 h 2 min"),
    ],
)  # fmt: skip
def test_durations_are_shown_in_the_unit_people_use(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("value", "bar"),
    [
        (0.09, "0.084 to 0.092: 1"),
        (0.1, "0.092 to 0.1: 1"),
        (0.11, "0.104 to 0.12: 1"),
        (0.5, "0.46 to 0.5: 1"),
        (0.51, "0.44 to 0.52: 1"),
        (-1.0, "−1 to −0.92: 1"),
    ],
)
def test_the_histogram_of_differences_reaches_the_next_round_number(value: float, bar: str, tmp_path: Path) -> None:
    sides = {"default": max(0.0, -value), "relabel": max(0.0, value)}
    scores = [(model, "toy", "nDCG@10", "q", score, 1) for model, score in sides.items()]
    html = render(tmp_path, toy_tables() | {"scores": rows(schemas.SCORES, *scores)})
    assert f"<title>{bar}</title>" in html


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(report_module) == set()


def test_of_many_pairs_some_are_drawn_and_the_page_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dots(html: str) -> list[str]:
        svg = next(svg for svg in re.findall(r"<svg.*?</svg>", html, re.S) if "Similarity against" in svg)
        return re.findall(r'class="dot fill-(\w+)"', svg)

    whole = render(tmp_path / "whole", rich_tables())
    total = len(dots(whole))
    assert "are drawn" not in whole
    monkeypatch.setattr(scores_module, "MOST_DOTS", total // 2)
    some = render(tmp_path / "some", rich_tables())
    assert len(dots(some)) == total // 2
    assert f" {len(dots(some))} of {total} are drawn." in some


def test_the_page_is_the_same_from_any_number_of_query_parts(tmp_path: Path) -> None:
    config, tables = ReportConfig(tiers=("llm", "strong"), examples=3), rich_tables()
    whole = summed(tables, config.tiers, None, 3)

    def of_part(frame: pl.DataFrame, part: int) -> pl.DataFrame:
        mine = pl.col("query_id").str.slice(1).cast(pl.Int64) % 3 == part
        return frame.filter(mine) if "query_id" in frame.columns else frame.gather_every(3, part)

    cut = ("queries", "candidates", "similarity", "llm_verdicts", "decisions", "calls", "edits", "lengths", "positives")
    parts = [
        summed(tables | {name: of_part(tables[name], part) for name in cut}, config.tiers, None, 3) for part in range(3)
    ]
    counted = ("tallies", "verdict_scores", "relevant", "errors", "dots", "call_sums", "edit_tallies")
    in_parts = {name: [part[name] for part in parts] for name in counted}
    pages = []
    for name, made in (("whole", whole), ("parts", whole | in_parts)):
        (tmp_path / name).mkdir()
        report(config, out=tmp_path / name, **made)
        pages.append([(tmp_path / name / file).read_bytes() for file in ("report.html", "summary.json")])
    assert pages[0] == pages[1]
