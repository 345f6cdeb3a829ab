"""What an export of the method reads, and what its card says."""

import json
from pathlib import Path

import polars as pl

from flows.method.exports import wanted_tables, with_facts
from infra.storage.artifacts import materialise
from infra.storage.store import Store
from tasks.data.writing.config import ExportConfig
from tests.flows.animals import make_setup, run_method, tier, write_rows, write_source


def test_a_setting_that_asks_for_more_computes_the_exports_alone(tmp_path: Path) -> None:
    source, decide = write_source(tmp_path / "source"), {"relevant_from": 0.97, "not_relevant_below": 0.5}
    run_method(tmp_path, source, decide=decide)
    export = {"formats": ["datasets", "tevatron"], "soft_labels": "decision", "provenance": True}
    outcome, run, executor = run_method(tmp_path, source, decide=decide, export=export)
    computed = {name.rsplit("-", 1)[0] for name in executor.computed}
    assert {"export-default", "export-relabel"} <= computed
    assert all(name.startswith(("export-", "report")) for name in computed)
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
