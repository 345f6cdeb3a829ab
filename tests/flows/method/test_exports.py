"""What the method writes: what an export reads and its card says, and the report."""

import json
from pathlib import Path

import polars as pl
import pytest

from flows import stages as st
from flows.method import exports
from flows.method.exports import costs, wanted_tables, with_facts
from flows.method.tables import gather
from infra.storage.artifacts import materialise, read_table
from infra.storage.store import Store
from tasks import schemas
from tasks.data.writing.config import ExportConfig
from tests.flows.animals import make_setup, run_method, tier, write_rows, write_source


def test_a_setting_that_asks_for_more_computes_the_exports_alone(tmp_path: Path) -> None:
    source, decide = write_source(tmp_path / "source"), {"relevant_from": 0.97, "not_relevant_below": 0.5}
    run_method(tmp_path, source, decide=decide)
    export = {"formats": ["datasets", "tevatron"], "soft_labels": "decision", "provenance": True}
    outcome, run, executor = run_method(tmp_path, source, decide=decide, export=export)
    computed = {name.rsplit("-", 1)[0] for name in executor.computed}
    assert {"export-default", "export-relabel"} <= computed
    assert all(name.startswith(("export-", "render-", "report")) for name in computed)
    folder = materialise(run.store, outcome.exports["relabel"], tmp_path / "laid-out")
    (file,) = (folder / "datasets" / "data").iterdir()
    passages = pl.read_parquet(file)["positive_passages"].explode().struct.unnest()
    assert passages.filter(origin="positive")["score"].unique().to_list() == [1.0]
    moved = passages.filter(pl.col("origin") != "positive")
    assert moved["decided_by"].unique().to_list() == ["judge"]
    assert moved.height
    assert moved["score"].is_between(0.97, 1.0).all()
    card = (folder / "datasets" / "README.md").read_text()
    assert "treatment `relabel`" in card
    assert "- Judges: similarity of embeddings; `overlap:" in card
    assert str(tmp_path) not in card
    assert "## Agreement with known false negatives" in card


def test_facts_are_set_where_a_card_is_written_and_stay_out_of_other_keys(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    setup = make_setup(store, write_source(tmp_path / "source"), tiers=[tier("first"), tier("second")])
    assert with_facts(setup, ExportConfig()).facts is None
    config = with_facts(setup, ExportConfig(), ("datasets",))
    assert config.formats == ("datasets",)
    assert config.facts is not None
    assert list(config.facts.about) == ["Source", "Judges", "Decision", "Treatment"]
    assert config.facts.about["Source"] == "`source`"
    assert "tier second" in config.facts.about["Judges"]


def test_only_tables_that_the_settings_ask_for_are_read(tmp_path: Path) -> None:
    outcome, _, _ = run_method(tmp_path, write_source(tmp_path / "source"))
    assert set(wanted_tables(ExportConfig(), outcome.evidence)) == set()
    assert set(wanted_tables(ExportConfig(formats=("trec",)), outcome.evidence)) == {"candidates"}


def test_rows_that_nobody_judges_and_rows_without_candidates_are_exported_with_their_texts(tmp_path: Path) -> None:
    """No judge reads these texts, and they are brought to the query parts as the others are."""
    source = write_rows(tmp_path / "rows", ("judged", "skipped"))
    with (source / "rows.jsonl").open("a") as file:
        for number in range(4):
            alone = {"docid": f"p{number}", "title": "", "text": f"The otter of place {number} is alone."}
            row = {"query_id": f"a{number}", "query": f"who is alone {number}", "subset": f"alone-{number}"}
            file.write(json.dumps({**row, "positive_passages": [alone], "negative_passages": []}) + "\n")
    parts, policies = {"query_parts": 3, "passage_parts": 2}, {"skipped": {"skip": True}}
    outcome, run, _ = run_method(tmp_path, source, ingest=parts, policies=policies)
    folder = materialise(run.store, outcome.exports["default"], tmp_path / "laid-out")
    counts = json.loads((folder / "export.json").read_text())
    assert counts["datasets"] == {"judged": 12, "skipped": 12, **{f"alone-{number}": 1 for number in range(4)}}
    assert counts["without_negatives"] == 4
    lines = (folder / "tevatron-without-negatives" / "train.jsonl").read_text().splitlines()
    texts = [json.loads(line)["positive_passages"][0]["text"] for line in lines]
    assert texts == [f"The otter of place {number} is alone." for number in range(4)]


def test_scores_prompts_and_types_of_the_source_reach_the_export(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    row = {
        **{"query": "where does the otter live", "pos": ["The otter lives in the river."], "pos_scores": [0.98]},
        **{"neg": ["The otter eats fish.", "A bus is late."], "neg_scores": [0.11, 0.05]},
        **{"prompt": "Represent this question:", "type": "normal"},
    }
    (source / "rows.jsonl").write_text(json.dumps(row) + "\n")
    export = {"formats": ["flagembedding", "tevatron"]}
    outcome, run, _ = run_method(tmp_path, source, ingest={}, export=export)
    folder = materialise(run.store, outcome.exports["default"], tmp_path / "laid-out")
    assert json.loads((folder / "flagembedding" / "train.jsonl").read_text()) == row
    counts = json.loads((folder / "export.json").read_text())
    assert counts["not_held"] == {"tevatron": {"prompt": 1, "teacher": 3, "type": 1}}


def test_a_source_that_grows_is_counted_in_its_new_part_alone(tmp_path: Path) -> None:
    known = {"ingest": {"query_parts": 2, "passage_parts": 2}}
    first = run_method(tmp_path, write_source(tmp_path / "monday", queries=6), **known)
    again = run_method(tmp_path, write_source(tmp_path / "tuesday", queries=7), **known)
    grown = [name for name in again[2].computed if name.startswith(("sum_up_verdicts", "measure"))]
    assert len(grown) == 2  # `viper` comes into one of two parts
    assert len([name for name in first[2].computed if name.startswith("sum_up_verdicts")]) == 2
    summary = json.loads(again[1].store.get_object(again[0].page.files["summary.json"]))
    decided = read_table(again[1].store, again[0].evidence["decisions"])
    assert summary["candidates"] == decided.height
    assert summary["verdicts"]["relevant"] == (decided["state"] == "relevant").sum()


def test_lines_are_written_once_and_an_export_of_a_grown_source_merges_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "RENDERED_ROWS", 1)  # each query part is a group
    known = {"ingest": {"query_parts": 2, "passage_parts": 2}, "export": {"formats": ["tevatron", "flagembedding"]}}
    _, first, _ = run_method(tmp_path, write_rows(tmp_path / "monday", ("judged",)), **known)
    assert [done.parts for done in first.runs if done.name == "render-relabel"] == [2]
    grown = write_rows(tmp_path / "tuesday", ("judged",))
    row = {"query_id": "new", "query": "where is the lynx", "subset": "judged"}
    row |= {"positive_passages": [{"docid": "l1", "title": "", "text": "The lynx is in the wood."}]}
    row |= {"negative_passages": [{"docid": "l2", "title": "", "text": "The lynx is no dog."}]}
    with (grown / "rows.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    outcome, run, executor = run_method(tmp_path, grown, **known)
    assert len([name for name in executor.computed if name.startswith("render-relabel")]) == 1
    apart = tmp_path / "apart"
    apart.mkdir()
    monkeypatch.setattr(exports, "RENDERED_ROWS", 100)
    alone, other, _ = run_method(apart, grown, **known)
    assert [done.parts for done in other.runs if done.name == "render-relabel"] == [1]
    for treatment, export in outcome.exports.items():
        assert export.files == alone.exports[treatment].files
    assert other.store.url != run.store.url  # nothing was found there


def test_formats_of_all_rows_are_written_from_the_tables(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    _, run, _ = run_method(tmp_path, source, export={"formats": ["beir"]})
    assert not [done for done in run.runs if done.name.startswith("render")]
    both, run, _ = run_method(tmp_path, source, export={"formats": ["beir", "tevatron"]})
    assert {done.name for done in run.runs if done.name.startswith("render")} >= {"render-default", "render-relabel"}
    names = {name.partition("/")[0] for name in both.exports["relabel"].files}
    assert {"beir", "tevatron"} <= names


def test_the_page_says_of_all_parts_what_the_tables_say(tmp_path: Path) -> None:
    outcome, run, executor = run_method(tmp_path, write_source(tmp_path / "source"))
    summary = json.loads(run.store.get_object(outcome.page.files["summary.json"]))
    decided = read_table(run.store, outcome.evidence["decisions"])
    states = dict(decided.group_by("state").len().iter_rows())
    assert {state: count for state, count in summary["verdicts"].items() if count} == states
    assert summary["llm_calls"] == len(executor.llm.asked)
    assert summary["queries"] == 12
    relabelled = [piece for done in run.runs if done.name == "treat-relabel" for m in done.manifests
                  for piece in m.tables["edits"]]  # fmt: skip
    assert 0 < summary["found"] <= sum(piece.rows for piece in relabelled)


def test_each_part_has_a_piece_of_what_is_gathered_also_where_nothing_was_asked(tmp_path: Path) -> None:
    _, run, _ = run_method(tmp_path, write_source(tmp_path / "source"))
    table = gather(run, "windows", st.JUDGE.name, schemas.WINDOWS, frozenset(range(4)))
    assert table.indexes == frozenset(range(4))
    asked = next(done for done in run.runs if done.name == "judge-llm")
    assert table.rows == sum(piece.rows for m in asked.manifests for piece in m.tables["windows"]) > 0
    assert gather(run, "windows", "no such stage", schemas.WINDOWS, frozenset({0})).rows == 0


def test_costs_have_a_row_for_each_stage_so_far(tmp_path: Path) -> None:
    _, run, _ = run_method(tmp_path, write_source(tmp_path / "source"))
    rows = {row["stage"]: row for row in costs(run).to_dicts()}
    assert set(rows) == {done.name for done in run.runs}
    assert rows["sum_up_verdicts"]["parts"] == 2
    assert rows["decide"]["rows_out"] == next(done for done in run.runs if done.name == "decide").rows
