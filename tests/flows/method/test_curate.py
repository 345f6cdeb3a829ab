"""The whole method with fake engines: what flows where, what is reused when the data grows, golden digests."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.method.curate import curate_method
from flows.stages import STAGES
from infra.stages.part_keys import digest
from infra.stages.runner import Runner
from infra.storage.artifacts import Table, read_table
from infra.storage.store import Store
from tests.flows.animals import ANIMALS, make_setup, run_method, tier, write_rows, write_source
from tests.flows.fakes import InProcess

GOLDEN = Path(__file__).parents[1] / "golden.json"


def test_every_row_of_the_source_ends_as_instance_or_reject_and_every_candidate_has_one_decision(
    tmp_path: Path,
) -> None:
    _, run, _ = run_method(tmp_path, write_source(tmp_path / "source"))
    tables = {r.name: r for r in run.runs}
    assert tables["judge_similarity"].rows == 2 * tables["decide"].rows  # verdicts and features
    instances = sum(p.rows for m in tables["treat-default"].manifests for p in m.tables["instances"])
    assert instances == 9


def test_nothing_is_computed_twice_and_a_new_prompt_length_judges_again_but_mines_nothing(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    run_method(tmp_path, source)
    assert run_method(tmp_path, source)[2].computed == []
    computed = run_method(tmp_path, source, tiers=[tier(judge={"passage_chars": 100})])[2].computed
    assert {name.rsplit("-", 1)[0] for name in computed} <= {
        "judge-llm", "decide", "compare_known", "agree", "tally", "complete", "shortlist", "draw", "show_pairs",
        "sample", "treat-default", "treat-remove", "treat-remove_hn",
        "treat-relabel", "export-default", "export-remove", "export-remove_hn", "export-relabel",
        "render-default", "render-remove", "render-remove_hn", "render-relabel",
        "sum_up_verdicts", "sum_up_edits", "choose_examples", "excerpt", "report",
    }  # fmt: skip
    assert "judge-llm-00000" in computed


def test_another_treatment_costs_no_call(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    run_method(tmp_path, source)
    computed = run_method(tmp_path, source, treat={"max_false_negatives": 1})[2].computed
    assert not [name for name in computed if name.startswith(("judge", "mine", "encode", "decide"))]


def test_paper_7_1_too_many_unparsed_pairs_shut_the_gate_before_every_treatment_that_reads_verdicts(
    tmp_path: Path,
) -> None:
    source = write_source(tmp_path / "source")
    store = Store.open(str(tmp_path / "store"))
    run = Runner(store, InProcess(store, tmp_path / "scratch"))
    once = tier(judge={"max_attempts": 1})
    curate_method(run, make_setup(store, source, tiers=[once], complete={"max_unparsed": 0.0}))
    done = {r.name: r for r in run.runs}
    assert "pairs unparsed" in done["complete"].failed[0]
    assert done["treat-relabel"].blocked == done["treat-relabel"].parts == 2
    assert done["report"].blocked == 1
    assert done["treat-default"].computed == 2


def test_a_source_without_training_queries_ends_with_an_empty_report(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    (source / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n")
    (source / "qrels" / "known.tsv").write_text("query-id\tcorpus-id\tscore\n")
    _, run, _ = run_method(tmp_path, source)
    assert next(r for r in run.runs if r.name == "decide").rows == 0
    assert run.runs[-1].name == "report"


def test_an_encoder_read_otherwise_judges_given_negatives_again(tmp_path: Path) -> None:
    """The embeddings are joined late, so the encoder's settings must be in the key of what reads them."""
    source = tmp_path / "source"
    source.mkdir()
    row = {"query": "where does the otter live", "pos": ["In the river."], "neg": ["It eats fish.", "It sleeps."]}
    (source / "rows.jsonl").write_text(json.dumps(row) + "\n")
    run_method(tmp_path, source, ingest={})
    store = Store.open(str(tmp_path / "store"))
    executor = InProcess(store, tmp_path / "scratch")
    setup = replace(make_setup(store, source, ingest={}), encoder_key="the same weights, shorter texts")
    curate_method(Runner(store, executor), setup)
    assert "judge_similarity-00000" in executor.computed


def test_relabelled_passages_move_from_the_negatives_to_the_positives(tmp_path: Path) -> None:
    outcome, run, _ = run_method(
        tmp_path, write_source(tmp_path / "source"), decide={"relevant_from": 0.97, "not_relevant_below": 0.5}
    )
    instances = {t: read_table(run.store, table) for t, table in outcome.instances.items()}
    assert (instances["default"]["positives"].list.len() == 1).all()
    moved = instances["relabel"].filter(pl.col("positives").list.len() > 1)
    assert moved.height
    for row in moved.iter_rows(named=True):
        assert not set(row["positives"]) & set(row["negatives"])


def test_rows_that_carry_negatives_are_judged_as_they_are_and_not_mined(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rows = [
        {"query": f"where does the {a} live", "pos": [f"The {a} lives near the river."],
         "neg": [f"The {a} eats fish {n}." for n in range(4)]}
        for a in ANIMALS[:5]
    ]  # fmt: skip
    (source / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, run, _ = run_method(tmp_path, source, ingest={"query_parts": 2})
    names = [r.name for r in run.runs]
    assert "mine" not in names
    assert "search" not in names
    assert next(r for r in run.runs if r.name == "judge_similarity").rows == 2 * 20  # verdicts, features


def stage_digests(run: Runner) -> dict[str, dict[str, Any]]:
    """Digest what each stage wrote: equal digests are equal bytes."""
    versions = {stage.name: stage.version for stage in STAGES}
    found = {}
    for done in run.runs:
        written = [(m.part, {n: [p.object for p in t] for n, t in m.tables.items()}) for m in done.manifests]
        files = [{n: dict(f) for n, f in m.directories.items()} for m in done.manifests]
        if done.name in ("report", "sample"):
            continue  # the report shows how long things took
        found[done.name] = {"version": versions[done.manifests[0].stage], "digest": digest([written, files])}
    return found


def test_a_stage_whose_output_changed_has_a_raised_version(tmp_path: Path) -> None:
    """A golden digest per stage: when this fails and the change is meant, raise the stage's version and regenerate.

    python -m tests.flows.method.test_curate
    """
    _, run, _ = run_method(tmp_path, write_source(tmp_path / "source"))
    golden = json.loads(GOLDEN.read_text())
    found = stage_digests(run)
    assert set(found) == set(golden)
    changed = {n for n in found if found[n]["digest"] != golden[n]["digest"]}
    silent = sorted(n for n in changed if found[n]["version"] == golden[n]["version"])
    assert silent == [], f"{silent[0]}: output changed, version did not; raise it in flows/stages.py"
    assert not changed, f"{sorted(changed)}: regenerate {GOLDEN.name} with `python -m tests.flows.method.test_curate`"


def _regenerate() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        _, run, _ = run_method(Path(folder), write_source(Path(folder) / "source"))
        GOLDEN.write_text(json.dumps(stage_digests(run), indent=1, sort_keys=True) + "\n")


def test_whether_queries_have_to_be_mined_is_counted_by_the_parts_and_not_read_by_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, real = list[str](), Runner.read

    def watched(self: Runner, table: Table, columns: Sequence[str] | None = None) -> pl.DataFrame:
        read.append(table.name)
        return real(self, table, columns)

    monkeypatch.setattr(Runner, "read", watched)
    source, ingest = write_rows(tmp_path / "rows", ("one",)), {"query_parts": 3, "passage_parts": 2}
    _, run, _ = run_method(tmp_path, source, ingest=ingest)
    assert "mine" not in {done.name for done in run.runs}
    with (source / "rows.jsonl").open("a") as file:
        known = {"docid": "new", "title": "", "text": "The lion lives near river 0."}
        row = {"query_id": "new", "query": "where does the lion live", "subset": "one", "positive_passages": [known]}
        file.write(json.dumps({**row, "negative_passages": []}) + "\n")
    _, run, _ = run_method(tmp_path, source, ingest=ingest)
    assert "mine" in {done.name for done in run.runs}
    assert "given" not in read


if __name__ == "__main__":
    _regenerate()
