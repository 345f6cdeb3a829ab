"""The stages around escalation: what each part reads, and what a change computes again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from flows import stages
from flows.escalation_stages import ALLOT, COMPLETE, COUNT_OPEN, ESCALATE, SPLIT_IMPORTED, TALLY
from flows.method.curate import curate_method
from flows.method.judging import _cut_rows
from flows.method.judging import escalate as run_escalation
from flows.method.tables import Generations, union
from flows.stage_names import section_of
from infra.stages.part_spec import PartSpec
from infra.stages.runner import Failure, Runner
from infra.storage.artifacts import Directory, Manifest, Table, read_table, write_directory
from infra.storage.store import Store
from tasks import schemas
from tasks.quality.imported import COLUMNS, FILE, ImportedConfig
from tasks.verdicts.escalate import EscalateConfig, escalate
from tests.flows.animals import make_setup, tier, write_source
from tests.flows.fakes import InProcess
from tests.tasks.verdicts.judged import Judged, candidates, verdicts
from tests.tasks.verdicts.test_allot import pool

BUDGET = EscalateConfig(max_share=0.4)


class Watched(InProcess):
    """Keeps what each part was given."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Store.open(str(folder / "store")), folder / "scratch")
        self.specs: list[PartSpec] = []

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        self.specs += specs
        return super().run_stage(name, specs, finished)


def put(run: Runner, parts: Sequence[Sequence[Judged]]) -> dict[str, Table]:
    """Store candidates and verdicts, each part under its number."""
    made = {"candidates": (candidates, schemas.CANDIDATES), "verdicts": (verdicts, schemas.VERDICTS)}
    return {
        name: union(name, *(run.keep_table(name, of(rows), schema, frozenset({n})) for n, rows in enumerate(parts)))
        for name, (of, schema) in made.items()
    }


def escalated(folder: Path, parts: Sequence[Sequence[Judged]], generations: Sequence[range]) -> tuple[Any, list[str]]:
    """Escalate; returns what each part is asked about, and the parts that were computed."""
    executor = Watched(folder)
    run = Runner(executor.store, executor)
    found = run_escalation(run, "llm", BUDGET, generations, put(run, parts))
    assert not any(done.failed for done in run.runs)
    return {n: run.read(found.at(n))["doc_id"].to_list() for n in sorted(found.indexes)}, executor.computed


def test_they_are_in_the_table_and_configured_by_the_sections_that_people_write() -> None:
    assert all(stage in stages.STAGES for stage in (COUNT_OPEN, ALLOT, ESCALATE, TALLY, COMPLETE))
    assert [section_of(name) for name in ("count_open", "allot", "escalate", "tally")] == ["escalate"] * 3 + [
        "complete"
    ]


def test_a_budget_over_five_parts_is_spent_as_over_one_and_each_pair_stays_in_its_part(tmp_path: Path) -> None:
    parts = pool(5, 40)
    whole = [row for rows in parts for row in rows]
    found, computed = escalated(tmp_path, parts, [range(5)])
    expected = escalate(BUDGET, candidates=candidates(whole), verdicts=verdicts(whole))["escalated"]
    assert sorted(doc for docs in found.values() for doc in docs) == sorted(expected["doc_id"])
    assert all(set(found[n]) <= {doc for _, doc, _, _ in rows} for n, rows in enumerate(parts))
    assert [name for name in computed if name.startswith("allot")] == ["allot-llm-00000"]


def test_one_changed_verdict_computes_its_own_part_again_and_the_small_stage(tmp_path: Path) -> None:
    parts = pool(5, 40)
    before, _ = escalated(tmp_path, parts, [range(5)])
    (query, doc, _, score), *rest = sorted(parts[2], key=lambda row: -(row[3] or 0.0))
    parts[2] = [(query, doc, "relevant", (score or 0.0) + 0.001), *rest]
    after, computed = escalated(tmp_path, parts, [range(5)])
    assert sorted(computed) == ["allot-llm-00000", "count_open-llm-00002", "escalate-llm-00002"]
    assert after == before


def test_what_growth_brings_has_a_budget_of_its_own_and_changes_nothing_in_older_parts(tmp_path: Path) -> None:
    parts = pool(3, 30)
    before, _ = escalated(tmp_path, parts, [range(3)])
    news = [[(f"n{q}", f"n{d}", s, p) for q, d, s, p in rows] for rows in pool(1, 8, seed=3)]
    after, computed = escalated(tmp_path, [*parts, *news], [range(3), range(3, 4)])
    assert {n: after[n] for n in before} == before
    assert sorted(computed) == ["allot-llm-g1-00000", "count_open-llm-00003", "escalate-llm-00003"]
    alone = escalate(BUDGET, candidates=candidates(news[0]), verdicts=verdicts(news[0]))["escalated"]
    assert after[3] == alone["doc_id"].to_list()


def test_without_a_budget_nothing_is_counted(tmp_path: Path) -> None:
    executor = Watched(tmp_path)
    run = Runner(executor.store, executor)
    run_escalation(run, "llm", EscalateConfig(), [range(3)], put(run, pool(3, 9)))
    assert [done.name for done in run.runs] == ["escalate-llm"]


def cut_for(run: Runner, queries: Table, generations: tuple[int, ...], source: Directory) -> list[tuple[Any, ...]]:
    data: Any = SimpleNamespace(queries=queries, generations=Generations(queries=generations))
    rows = _cut_rows(run, SPLIT_IMPORTED, ImportedConfig(), "", data, {"source": source})
    return [(part, *read_table(run.store, rows.at(part)).row(0)) for part in sorted(rows.indexes)]


def test_each_generation_of_queries_has_its_own_cut_of_a_file_but_what_was_cut_together_stays(tmp_path: Path) -> None:
    executor = Watched(tmp_path)
    store, run = executor.store, Runner(executor.store, executor)
    hashes, folder = [f"{n:032x}" for n in range(4)], tmp_path / "file"
    folder.mkdir()
    verdicts = pl.DataFrame([(own, "0" * 32, "relevant", 1.0) for own in hashes], schema=COLUMNS, orient="row")
    verdicts.write_parquet(folder / FILE)
    source = write_directory(store, "source", folder)

    def queries(parts: int) -> Table:
        frames = (
            pl.DataFrame([("d", own, own, own, "train")], schemas.QUERIES.columns, orient="row") for own in hashes
        )
        kept = [run.keep_table("queries", frame, schemas.QUERIES, frozenset({n})) for n, frame in enumerate(frames)]
        return union("queries", *kept[:parts])

    run(SPLIT_IMPORTED, ImportedConfig(), source=source, queries=queries(3))  # as an earlier version did
    assert [row[:2] for row in cut_for(run, queries(3), (2, 1), source)] == list(enumerate(hashes[:3]))
    assert executor.computed == ["split_imported-00000"]
    grown = cut_for(run, queries(4), (2, 1, 1), source)
    assert [row[:2] for row in grown] == list(enumerate(hashes))
    apart = ["split_imported-00000", "split_imported-g1-00000", "split_imported-g2-00000"]
    assert executor.computed[1:] == apart
    assert cut_for(run, queries(4), (2, 1, 1), source) == grown
    assert executor.computed[1:] == apart


TARGET = {"recall": 0.5, "precision": 0.5, "confidence": 0.5, "audit": 16}


@pytest.mark.parametrize(
    "tiers",
    [[tier("weak", max_pairs=30), tier("strong", max_share=0.2)], [{"name": "llm", "escalate": {"target": TARGET}}]],
    ids=["budgets", "a guarantee"],
)
def test_no_part_of_the_cascade_reads_a_verdict_of_another_part(tmp_path: Path, tiers: list[dict[str, Any]]) -> None:
    executor = Watched(tmp_path)
    ingest = {"query_parts": 5, "passage_parts": 2, "known_split": "known"}
    setup = make_setup(executor.store, write_source(tmp_path / "source"), tiers=tiers, ingest=ingest)
    curate_method(Runner(executor.store, executor), setup)
    aligned = ("escalate", "count_open", "score_pool", "audit", "read_audit", "settle", "judge", "decide", "tally")
    seen = [spec for spec in executor.specs if spec.stage.name in aligned]
    assert {spec.index for spec in seen} == set(range(5))
    for spec in seen:
        cut = [spec.inputs[name] for name in spec.inputs if name not in spec.stage.late]
        pieces = [
            piece for table in cut if isinstance(table, Table) for piece in table.pieces if len(table.indexes) > 1
        ]
        assert not pieces, spec.name
    decided = {spec.index: spec.inputs["llm_verdicts"] for spec in seen if spec.stage.name == "decide"}
    assert sum(table.rows for table in decided.values() if isinstance(table, Table)) > 0
    assert all({p.index for p in t.pieces} == {n} for n, t in decided.items() if isinstance(t, Table))
    assert pl.concat(
        Runner(executor.store).read(t).select("query_id") for t in decided.values() if isinstance(t, Table)
    ).height
