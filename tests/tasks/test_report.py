import json
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

from tasks import schemas
from tasks.formatting import percent
from tasks.report import plots
from tasks.report.examples import pick_examples
from tasks.report.report import ReportConfig, report
from tasks.report.summary import conclude, count_figures, say_people, summarise
from tasks.texts import hash_passage, hash_text

HOSTILE = '<script>alert("x")</script> \u202egnp.exe & \x00 \'"><img src=http://evil.example/x>'
VOID = {"meta", "link", "br", "img", "hr", "input"}


def rows(schema: schemas.Schema, *data: tuple[Any, ...]) -> pl.DataFrame:
    return pl.DataFrame(data, schema=schema.columns, orient="row") if data else schema.empty()


def verdicts(tier: str, *data: tuple[str, str, str, float | None]) -> pl.DataFrame:
    """Rows of query_id, doc_id, state, score."""
    full = [("toy", q, d, tier, "judge", state, score, None, None, None, 1) for q, d, state, score in data]
    return rows(schemas.VERDICTS, *full)


def empty_tables() -> dict[str, pl.DataFrame]:
    named = {
        "queries": schemas.QUERIES,
        "passages": schemas.PASSAGES,
        "positives": schemas.POSITIVES,
        "candidates": schemas.CANDIDATES,
        "similarity": schemas.VERDICTS,
        "llm_verdicts": schemas.VERDICTS,
        "calls": schemas.CALLS,
        "decisions": schemas.VERDICTS,
        "agreement": schemas.AGREEMENT,
        "edits": schemas.EDITS,
        "scores": schemas.SCORES,
        "rejects": schemas.REJECTS,
        "costs": schemas.COSTS,
    }
    return {name: schema.empty() for name, schema in named.items()}


def toy_tables(query: str = "how to cook rice") -> dict[str, pl.DataFrame]:
    """Two training queries and a held-out one; q1 has one false negative (d2), q2 none."""
    texts = {"d1": "boil it in water", "d2": query + " boils", "d3": "rice is a grass", "d4": "wheat is a grass"}
    passages = [("toy", d, "", text, hash_passage("", text)) for d, text in texts.items()]
    asked = [("q1", query, "train"), ("q2", "what is wheat", "train"), ("q3", "rye", "test")]
    hashes = {row[1]: row[4] for row in passages}
    pairs = [("q1", "d2"), ("q1", "d3"), ("q2", "d1"), ("q2", "d3")]
    states = ["relevant", "unsure", "not_relevant", "unparsed"]
    scores = [0.9, 0.5, 0.1, None]
    measured = [
        (model, "toy", measure, "q3", value, 42)
        for measure in ("nDCG@10", "RR@10")
        for model, value in (("base", 0.5), ("default", 0.5), ("relabel", 0.75))
    ]
    return empty_tables() | {
        "queries": rows(schemas.QUERIES, *[("toy", q, t, hash_text(t), split) for q, t, split in asked]),
        "passages": rows(schemas.PASSAGES, *passages),
        "positives": rows(
            schemas.POSITIVES, ("toy", "q1", "d1", hashes["d1"], "given"), ("toy", "q2", "d4", hashes["d4"], "given")
        ),
        "candidates": rows(
            schemas.CANDIDATES, *[("toy", q, d, hashes[d], "q", "p", "dense", 1, 0.5) for q, d in pairs]
        ),
        "similarity": verdicts("similarity", *[(q, d, "unsure", 0.4) for q, d in pairs]),
        "llm_verdicts": verdicts("llm", ("q1", "d2", "relevant", 0.95), ("q2", "d3", "unparsed", None)),
        "calls": rows(
            schemas.CALLS,
            ("c1", "j", None, "Yes", "stop", 100, 1, None),
            ("c2", "j", None, "?", "length", 50, 1, "fp"),
        ),
        "decisions": verdicts("cascade", *[(*pair, s, v) for pair, s, v in zip(pairs, states, scores, strict=True)]),
        "agreement": rows(schemas.AGREEMENT, ("cascade", 4, 2, 1, 1, 0.5, 1.0, 1.0, 0.75)),
        "edits": rows(schemas.EDITS, ("toy", "q1", "d2", "negative", "positive", "judge", "relevant", 0.9)),
        "scores": rows(schemas.SCORES, *measured),
        "rejects": rows(schemas.REJECTS, *[("ingest", f"line {n}", "broken_json", "comma") for n in (3, 9)]),
        "costs": rows(schemas.COSTS, ("judge-llm", 1, 75.0, 2, 4), ("ingest", 1, 0.04, 9, 8)),
    }  # fmt: skip


def render(out: Path, tables: dict[str, pl.DataFrame], **settings: Any) -> str:
    out.mkdir(exist_ok=True)
    assert report(ReportConfig(**settings), out=out, **tables) == {}
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
    assert {name: value for name, value in summary.items() if name not in ("tiers", "conclusions")} == {
        "queries": 3,
        "passages": 4,
        "candidates": 4,
        "verdicts": {"relevant": 1, "not_relevant": 1, "unsure": 1, "unparsed": 1},
        "known_false_negatives": 2,
        "known_found": 1,
        "found": 1,
        "llm_calls": 2,
        "ndcg10": {"default": 0.5, "relabel": 0.75},
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


def test_an_example_shows_positives_then_relabelled_then_unsure_then_kept() -> None:
    tables = toy_tables()
    tables["decisions"] = verdicts(
        "cascade", ("q1", "d2", "relevant", 0.9), ("q1", "d3", "unsure", 0.5), ("q1", "d4", "not_relevant", 0.2)
    )
    (example,) = pick_examples(
        queries=tables["queries"],
        passages=tables["passages"],
        positives=tables["positives"],
        verdicts=pl.concat([tables["llm_verdicts"], tables["decisions"]]),
        edits=tables["edits"],
        known=rows(schemas.KNOWN, ("toy", "q1", "d2")),
        limit=3,
    )
    assert [(p.doc_id, p.fate) for p in example.positives] == [("d1", "positive")]
    assert [(p.doc_id, p.fate, p.picked, p.known) for p in example.candidates] == [
        ("d2", "relabelled", True, True),
        ("d3", "unsure", False, False),
        ("d4", "kept", False, False),
    ]
    assert example.candidates[0].scores == {"cascade": 0.9, "llm": 0.95}


def figure_tables(tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    return {name: frame for name, frame in tables.items() if name not in ("positives", "similarity")}


def test_a_dropped_query_is_counted_and_said() -> None:
    tables = figure_tables(toy_tables())
    tables["edits"] = rows(schemas.EDITS, ("toy", "q1", "d2", "pool", "dropped", "judge", "relevant", 0.9))
    figures = count_figures(**tables)
    assert (figures.found, figures.dropped) == (0, 1)
    assert conclude(figures, [])[-1] == "1 query was dropped whole, having too many false negatives to be clear."


def test_summarise_gives_the_same_numbers_without_a_page() -> None:
    assert summarise(**figure_tables(toy_tables()))["found"] == 1


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0%"), (0.0001, "<0.1%"), (0.031, "3.1%"), (0.5, "50%"), (0.9999, ">99.9%"), (1.0, "100%")],
)
def test_a_share_is_never_rounded_to_none_or_all(share: float, shown: str) -> None:
    assert percent(share) == shown


def test_every_value_falls_into_one_bin_the_last_one_closed() -> None:
    assert [bar.count for bar in plots.bin_values([0.0, 0.25, 0.5, 0.75, 1.0], 0, 1, 4)] == [1, 1, 1, 2]


def test_the_bin_in_the_middle_of_an_odd_number_holds_zero() -> None:
    bars = plots.bin_values([0.0, 0.0, -0.5], -1, 1, 5)
    assert [bar.count for bar in bars] == [0, 1, 2, 0, 0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0, [0]),
        (-0.05, 0.05, [-0.04, -0.02, 0, 0.02, 0.04]),
        (0, 61, [0, 20, 40, 60]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert plots.ticks(low, high) == pytest.approx(expected)


def test_the_cut_is_drawn_between_the_last_number_kept_and_the_first_dropped() -> None:
    svg = plots.counts({0: 5, 9: 1}, label="l", x_title="x", y_title="y", cut=(7, "more than 7: dropped"))
    assert svg.count('class="fill-cut"') == 2
    assert "more than 7: dropped" in svg
