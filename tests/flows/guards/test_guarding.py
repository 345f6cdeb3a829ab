"""The guards in the method: what is planted is found, dropped, refused, exported and reported, whatever the parts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.guards.guarding import name_sets
from flows.method.curate import curate_method
from flows.method.setup import Contaminated, Outcome
from infra.stages.runner import Runner
from infra.storage.artifacts import Table, materialise, read_table, write_directory
from infra.storage.store import Store
from tests.flows.animals import make_setup, run_method, write_source
from tests.flows.fakes import InProcess

ALL = {"positives": "drop", "corpus": True, "rows": "near", "contamination": "drop", "similarity": 0.8}


def write_planted(folder: Path) -> Path:
    """The animals, with near copies of two positives in the corpus, and one more query about one of these copies."""
    write_source(folder)
    with (folder / "corpus.jsonl").open("a") as file:
        for animal in ("otter", "heron"):
            text = (
                f"The {animal} lives near the river, where the {animal} hunts and sleeps in spring number 0, they say."
            )
            file.write(json.dumps({"_id": f"{animal}-copy", "title": "", "text": text}) + "\n")
    with (folder / "queries.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "q99", "text": "at which water is an otter at home"}) + "\n")
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q99\totter-copy\t1\n")
    return folder


def write_evaluation(folder: Path) -> Path:
    """One query of the training data, in other case; another one; and a text near a positive."""
    (folder / "0").mkdir(parents=True)
    (folder / "0" / "queries.txt").write_text("Where does the LYNX live?\nhow do birds fly\n")
    near = "The boar lives near the river, where the boar hunts and sleeps in spring number 0, as people say."
    (folder / "0" / "texts.jsonl").write_text(json.dumps({"id": "t1", "text": near}) + "\n")
    return folder


def run_guarded(
    tmp_path: Path, guards: dict[str, Any], *, evaluate: bool = False, **changes: Any
) -> tuple[Outcome, Runner, InProcess]:
    store = Store.open(str(tmp_path / "store"))
    source = tmp_path / "source"
    setup = make_setup(store, source if source.exists() else write_planted(source), guards=guards, **changes)
    if evaluate:
        folder = tmp_path / "evaluation"
        files = write_directory(store, "source", folder if folder.exists() else write_evaluation(folder))
        setup = replace(setup, evaluation=files)
    executor = InProcess(store, tmp_path / "scratch")
    run = Runner(store, executor)
    outcome = curate_method(run, setup)
    assert {r.name: r.failed for r in run.runs if r.failed} == {}
    return outcome, run, executor


def output(run: Runner, name: str, stage: str) -> pl.DataFrame:
    (done,) = (done for done in run.runs if done.name == stage)
    pieces = (piece for manifest in done.manifests for piece in manifest.tables[name])
    return read_table(run.store, Table(name, tuple(pieces)))


def summary_of(run: Runner, outcome: Outcome, folder: Path) -> dict[str, Any]:
    page = materialise(run.store, outcome.page, folder)
    found: dict[str, Any] = json.loads((page / "summary.json").read_text())
    assert ("Near duplicates and contamination" in (page / "report.html").read_text()) == ("guards" in found)
    return found


def test_planted_copies_shared_texts_and_contaminations_are_found_dropped_exported_and_reported(
    tmp_path: Path,
) -> None:
    outcome, run, _ = run_guarded(
        tmp_path, {**ALL, "evaluation": ["beir/nfcorpus"]}, evaluate=True, mine={"range_max": 12, "num_negatives": 3}
    )
    contamination = output(run, "contamination", "find_contamination")
    assert contamination.select("query_id", "doc_id", "set", "kind", "match").rows() == [
        ("q2", None, "nfcorpus", "query", "same"),
        ("q9", "boar-river", "nfcorpus", "passage", "near"),
    ]
    assert not set(outcome_queries(run, outcome)) & {"q2", "q9"}
    near = output(run, "near", "compare_texts")
    named = {tuple(sorted(pair)) for pair in near.select("left_doc_id", "right_doc_id").iter_rows()}
    assert {("heron-copy", "heron-river"), ("otter-copy", "otter-river")} <= named
    repeats = output(run, "repeats", "guard_positives").select("query_id", "doc_id", "positive").rows()
    assert ("q0", "otter-copy", "otter-river") in repeats
    judged = output(run, "decisions", "decide").select("query_id", "doc_id").rows()
    assert not {(query, doc) for query, doc, _ in repeats} & set(judged)
    apart = read_table(run.store, outcome.do_not_batch["default"])
    assert ("q0", "q99", "same_positive") in apart.select("query_id", "other_query_id", "reason").rows()
    folder = materialise(run.store, outcome.exports["default"], tmp_path / "laid-out")
    assert pl.read_parquet(folder / "do_not_batch.parquet").height == apart.height
    assert json.loads((folder / "export.json").read_text())["do_not_batch"] == apart.height
    guards = summary_of(run, outcome, tmp_path / "page")["guards"]
    assert guards["contamination"]["found"] == guards["contamination"]["dropped"] == 2
    assert guards["positives"]["found"] == len(repeats)
    assert guards["corpus"]["groups"] >= 2
    assert {"rows-default", "rows-relabel"} <= set(guards)


def outcome_queries(run: Runner, outcome: Outcome) -> list[str]:
    return read_table(run.store, outcome.instances["default"])["query_id"].to_list()


def test_what_is_found_does_not_depend_on_the_parts(tmp_path: Path) -> None:
    found = []
    for parts in (1, 3):
        folder = tmp_path / str(parts)
        ingest = {"query_parts": parts, "passage_parts": parts, "known_split": "known"}
        _, run, _ = run_guarded(folder, {**ALL, "evaluation": ["x"]}, evaluate=True, ingest=ingest)
        tables = [
            output(run, name, stage).sort(pl.all())
            for name, stage in (
                ("contamination", "find_contamination"),
                ("near", "compare_texts"),
                ("groups", "group_duplicates"),
                ("repeats", "guard_positives"),
                ("do_not_batch", "pair_rows-relabel"),
            )
        ]
        found.append(tables)
    for one, several in zip(*found, strict=True):
        assert one.equals(several)
        assert one.height


def test_contamination_is_refused_before_anything_is_encoded(tmp_path: Path) -> None:
    write_planted(tmp_path / "source")
    store = Store.open(str(tmp_path / "store"))
    guards = {"evaluation": ["sets/mine.jsonl"], "contamination": "refuse"}
    setup = make_setup(store, tmp_path / "source", guards=guards)
    files = write_directory(store, "source", write_evaluation(tmp_path / "evaluation"))
    run = Runner(store, InProcess(store, tmp_path / "scratch"))
    with pytest.raises(
        Contaminated, match=r"(?s)2 of 10 training queries .*/q2: the query is query .* of mine\.jsonl"
    ) as told:
        curate_method(run, replace(setup, evaluation=files))
    assert "guards: {contamination: drop}" in str(told.value)
    assert not [done.name for done in run.runs if done.name.startswith(("encode", "judge"))]


def test_what_only_reports_changes_no_instance_and_computes_no_other_part_again(tmp_path: Path) -> None:
    write_planted(tmp_path / "source")
    plain, _, _ = run_method(tmp_path, tmp_path / "source")
    report = {"positives": "report", "corpus": True, "rows": "same", "evaluation": ["x"]}
    guarded, run, executor = run_guarded(tmp_path, report, evaluate=True)
    assert guarded.instances == plain.instances
    computed = {name.rsplit("-", 1)[0].partition("-")[0] for name in executor.computed}
    expected = {
        "read_evaluation",
        "want",
        "fetch_texts",
        "find_contamination",
        "guard_positives",
        "name_texts",
        "pair_rows",
    }
    expected |= {"sketch_passages", "pair_texts", "compare_texts", "group_duplicates", "export", "report"}
    assert computed <= expected
    assert run.runs[-1].name == "report"


def test_without_guards_no_stage_of_theirs_runs(tmp_path: Path) -> None:
    outcome, run, _ = run_method(tmp_path, write_source(tmp_path / "source"))
    names = {done.name.partition("-")[0] for done in run.runs}
    assert not names & {"find_contamination", "guard_positives", "sketch_passages", "pair_rows"}
    assert "guards" not in summary_of(run, outcome, tmp_path / "page")


def test_what_was_found_is_told(tmp_path: Path) -> None:
    write_planted(tmp_path / "source")
    store, said = Store.open(str(tmp_path / "store")), list[str]()
    setup = make_setup(store, tmp_path / "source", guards={"corpus": True})
    run = Runner(store, InProcess(store, tmp_path / "scratch"), on_note=said.append)
    curate_method(run, setup)
    assert [line for line in said if line.startswith("guards: ") and "have a near duplicate" in line]


def test_a_corpus_without_near_duplicates_is_said_to_have_none(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rows = [{"query": f"question {n}", "pos": [f"{n}" * 40], "neg": [f"{n + 5}" * 40]} for n in range(3)]
    (source / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome, run, _ = run_guarded(tmp_path, {"corpus": True, "rows": "near"}, ingest={})
    guards = summary_of(run, outcome, tmp_path / "page")["guards"]
    assert guards["corpus"] == {"groups": 0, "largest": 0, "removable": 0, "texts": 0}
    assert guards["rows-default"] == {"left_out": 0, "negative_is_positive": 0, "same_positive": 0}


def test_sets_are_named_by_their_addresses() -> None:
    assert name_sets(()) == ()
    assert name_sets(["hf://BeIR/scifact", "s3://x/scifact/", "zip://::s3://b/a.zip"]) == (
        "scifact",
        "scifact-1",
        "a.zip",
    )
