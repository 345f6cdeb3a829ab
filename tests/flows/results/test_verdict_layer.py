"""The verdict layer of a curation, read part by part."""

from pathlib import Path

import polars as pl

from flows.results.verdict_layer import verdict_parts
from infra.storage.artifacts import read_table
from tests.flows.animals import run_method, tier, write_source


def test_the_parts_hold_every_verdict_of_every_tier_once(tmp_path: Path) -> None:
    tiers = [tier("first"), tier("second")]
    outcome, run, _ = run_method(tmp_path, write_source(tmp_path / "source"), tiers=tiers)
    parts = list(verdict_parts(run.store, outcome.evidence))
    assert len(parts) == 2
    whole = {
        name: read_table(run.store, outcome.evidence[name]) for name in ("similarity", "llm_verdicts", "decisions")
    }
    key = ["dataset", "query_id", "doc_id", "tier"]
    verdicts = pl.concat([whole["similarity"], whole["llm_verdicts"]]).sort(key)
    assert set(verdicts["tier"]) == {"similarity", "first", "second"}
    assert pl.concat([part.verdicts for part in parts]).sort(key).equals(verdicts)
    assert pl.concat([part.decisions for part in parts]).sort(key).equals(whole["decisions"].sort(key))
    for part in parts:
        assert part.verdicts.join(part.candidates, on=key[:3], how="anti").is_empty()
