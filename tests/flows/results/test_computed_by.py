"""What computed a curation, as its folder says it."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from flows.results.computed_by import add_to_folder, mixed_markdown, replace_text
from infra.provenance import UNRECORDED

ONE = {
    "search": {"unit": "parts", "by": {"faiss 1; cpu: name <A>": 2}},
    "evaluate-base": {"unit": "parts", "by": {"torch 2; cpu: name <A>": 1}},
}
MIXED = {**ONE, "judge-llm": {"unit": "answers", "by": {"vllm 1; cpu: name <A>": 1200, "vllm 2; cpu: name <A>": 7}}}


def lay_out(folder: Path, computed: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    folder.mkdir()
    (folder / "report.html").write_text("<html><body><main>\n<p>page</p>\n</main>\n</body></html>")
    (folder / "summary.json").write_text('{"found": 4}')
    summary = add_to_folder(folder, computed)
    assert json.loads((folder / "summary.json").read_text()) == summary
    page = (folder / "report.html").read_text()
    HTMLParser().feed(page)
    return page, summary


def test_where_nothing_is_mixed_a_line_says_what_computed_it(tmp_path: Path) -> None:
    page, summary = lay_out(tmp_path / "one", ONE)
    assert summary == {"found": 4, "computed_by": ONE}
    assert (
        "<p>No stage mixes results of different software or processors. faiss 1; cpu: name &lt;A&gt; (search)." in page
    )
    assert "<table>" not in page
    assert page.index("page</p>") < page.index("What computed it") < page.index("</main>")


def test_a_stage_of_which_nothing_was_recorded_is_not_said_to_be_of_one_kind(tmp_path: Path) -> None:
    page, _ = lay_out(tmp_path / "old", {**ONE, "judge-llm": {"unit": "answers", "by": {UNRECORDED: 3}}})
    assert "<p>It was not recorded what computed judge-llm: they may mix results of several. faiss 1;" in page
    assert "No stage mixes" not in page


def test_a_mixed_stage_has_a_row_for_each_origin_and_the_others_none(tmp_path: Path) -> None:
    page, _ = lay_out(tmp_path / "mixed", MIXED)
    assert "Some stages mix results of different software, processors or models of an endpoint." in page
    assert page.count("<tr>") == 3
    assert (
        '<th scope="row">judge-llm</th><td>1,200 answers</td><td class="left wrap">vllm 1; cpu: name &lt;A&gt;' in page
    )
    assert "faiss" not in page


def test_markdown_names_mixed_stages_only() -> None:
    assert mixed_markdown(ONE) == ""
    assert mixed_markdown(MIXED) == (
        "- mixed: judge-llm: 1,200 answers by vllm 1; cpu: name <A>; 7 answers by vllm 2; cpu: name <A>"
    )


def test_a_text_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    replace_text(tmp_path / "a.txt", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "new")]
