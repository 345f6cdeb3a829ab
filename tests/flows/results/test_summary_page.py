from typing import Any

from flows.results.summary_page import summary_markdown

RESULT: dict[str, Any] = {
    "curation": "demo-000003",
    "queries": 40,
    "candidates": 250,
    "verdicts": {"relevant": 4, "not_relevant": 65, "unsure": 180, "unparsed": 1},
    "found": 4,
    "llm_calls": 1200,
    "ndcg10": {"default": 0.7012, "relabel": 0.71},
    "tiers": [
        {"tier": "cascade", "known": 10, "known_found": 8, "recall": 0.8, "precision": None},
        {"tier": "llm|strong", "known": 10, "known_found": 9, "recall": 0.9, "precision": 0.75},
        {"tier": "similarity", "known": 0, "known_found": 0, "recall": None, "precision": None},
    ],
    "conclusions": ["4 of 250 candidates (1.6%, 95% interval 0.6% to 4.0%) were judged to be false negatives."],
    "parts": {"computed": 12, "reused": 3},
    "seconds": 61.3,
    "report": "/home/me/report.html",
    "usage": {
        "judge-llm": {"calls": 1200.0, "prompt_tokens": 300000, "output_tokens": 1200, "seconds": 55.5, "money": 0.125,
                      "priced": 1.0},
        "judge-cheap": {"calls": 3, "prompt_tokens": 1, "output_tokens": 0, "seconds": 0, "money": 0.0, "priced": 0.0},
    },
    "currency": "USD",
}  # fmt: skip


def test_a_full_result_is_shown_with_its_interval_its_cost_and_its_scores() -> None:
    assert summary_markdown(RESULT).splitlines() == [
        "# demo-000003",
        "",
        "**4** false negatives relabelled, of 250 candidates for 40 queries",
        "",
        "- 4 of 250 candidates (1.6%, 95% interval 0.6% to 4.0%) were judged to be false negatives.",
        "",
        "| verdict | candidates | share |",
        "| --- | ---: | ---: |",
        "| false negatives | 4 | 1.6% |",
        "| not relevant | 65 | 26% |",
        "| unsure | 180 | 72% |",
        "| not readable | 1 | 0.4% |",
        "",
        "| tier | known false negatives | of them found | recall | precision |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| cascade | 10 | 8 | 80% | – |",
        "| llm\\|strong | 10 | 9 | 90% | 75% |",
        "",
        "| trained on | nDCG@10 |",
        "| --- | ---: |",
        "| default | 0.7012 |",
        "| relabel | 0.7100 |",
        "",
        "| this run asked | calls | tokens read | tokens written | engine seconds | cost |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| judge-llm | 1,200 | 300,000 | 1,200 | 56 | 0.12 USD |",
        "| judge-cheap | 3 | 1 | 0 | 0 | no price |",
        "",
        "12 parts computed, 3 reused, 61 s  ",
        "Report: `/home/me/report.html`",
    ]


def test_what_is_missing_is_left_out() -> None:
    bare = {"curation": "x-000001", "queries": 0, "candidates": 0, "found": 0, "verdicts": {}, "llm_calls": 0}
    assert summary_markdown(bare).splitlines() == [
        "# x-000001",
        "",
        "**0** false negatives relabelled, of 0 candidates for 0 queries",
        "",
        "0 calls to the language model",
    ]
    assert "nDCG" not in summary_markdown({**RESULT, "ndcg10": {"default": None, "relabel": None}})


def test_a_report_on_the_web_is_a_link() -> None:
    page = summary_markdown({**RESULT, "report": "https://reports.example/demo.html"})
    assert "[https://reports.example/demo.html](https://reports.example/demo.html)" in page


def test_a_stage_that_mixes_origins_is_named() -> None:
    mixed = {"judge-llm": {"unit": "answers", "by": {"vllm 1": 4, "vllm 2": 3}}}
    assert "- mixed: judge-llm: 4 answers by vllm 1; 3 answers by vllm 2" in summary_markdown(
        RESULT | {"computed_by": mixed}
    )
    assert "mixed" not in summary_markdown(RESULT)
