"""What people called irrelevant in the source: from the qrels to the training set, past every judge."""

from pathlib import Path

import pytest

from flows.method.curate import curate_method
from infra.stages.runner import Runner
from infra.storage.artifacts import read_table
from infra.storage.store import Store
from tests.flows.animals import make_setup, tier, write_source
from tests.flows.fakes import InProcess

# Both animals' passages share most words with the known relevant one, so that every judge calls them relevant.
KNOWN = [("q0", "otter-forest"), ("q1", "heron-meadow")]


@pytest.mark.parametrize(
    "escalate", [{}, {"states": ["relevant", "unsure", "not_relevant"], "unit": "row"}], ids=["pairs", "rows"]
)
def test_no_judge_is_asked_about_an_explicit_zero_and_no_treatment_promotes_it(
    tmp_path: Path, escalate: dict[str, object]
) -> None:
    source = write_source(tmp_path / "source")
    (source / "qrels" / "known.tsv").unlink()
    with (source / "qrels" / "train.tsv").open("a") as train:
        train.writelines(f"{query}\t{doc}\t0\n" for query, doc in KNOWN)
    store = Store.open(str(tmp_path / "store"))
    executor = InProcess(store, tmp_path / "scratch")
    run = Runner(store, executor)
    changes = {
        "ingest": {"query_parts": 2, "passage_parts": 2},
        "tiers": [tier(**escalate)],
        "decide": {"relevant_from": 0.2, "not_relevant_below": 0.1},
        "treat": {"max_false_negatives": 20},
        "treatments": ["default", "relabel", "remove_hn", "drop_ambiguous"],
    }
    outcome = curate_method(run, make_setup(store, source, **changes))
    asked = " ".join(executor.llm.asked)
    assert "<passage>\nThe otter lives near the meadow" in asked
    for query, doc in KNOWN:
        animal, place = doc.split("-")
        passage = f"<passage>\nThe {animal} lives near the {place}"
        assert not [text for text in executor.llm.asked if passage in text and f"where does the {animal}" in text]
        for treatment, table in outcome.instances.items():
            (row,) = read_table(store, table).filter(query_id=query).to_dicts()
            assert doc not in row["positives"], treatment
            if treatment in ("relabel", "drop_ambiguous"):  # it takes the place of a false negative
                assert doc in row["negatives"], treatment
    moved = read_table(store, outcome.instances["relabel"])
    assert (moved["positives"].list.len() > 1).any()
