"""From labels of people to a calibration, and to a curation that decides by it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.config.section import ConfigError
from flows.curation.lookup import look_at
from flows.curation.prepare import prepare
from flows.curation.records import draft_curation, load_curation
from flows.inputs.calibration import newest_calibration
from flows.method.afterwards.calibrate import Wanted
from flows.method.human_labels import write_labels
from flows.method.tables import Finished
from flows.runs.calibrate_curation import Made, calibrate_curation
from infra.storage.artifacts import read_table
from tasks import schemas
from tests.flows.animals import ANIMALS, tier
from tests.flows.nightly import Nights, sources

AT = datetime(2026, 3, 1, tzinfo=UTC).isoformat()


def table(nights: Nights, curation: str, stage: str, name: str) -> pl.DataFrame:
    workspace = nights.workspace
    _, runs = look_at(workspace, load_curation(workspace.store, curation))
    return read_table(workspace.store, Finished({run.name: run for run in runs}).table(name, stage))


def label_all(nights: Nights, curation: str) -> None:
    """Label every candidate: what lives in the forest, or in spring 0, is relevant; every tenth label is turned."""
    features = table(nights, curation, "judge_similarity", "features")
    turned = pl.int_range(pl.len()) % 10 == 0
    relevant = pl.col("doc_id").str.contains("forest|mountain") & (pl.col("to_query") > 0.3)
    labels = features.sort("text_hash", "query_hash").select(
        "query_hash",
        "text_hash",
        annotator=pl.lit("ann"),
        label=pl.when(relevant ^ turned).then(pl.lit("relevant")).otherwise(pl.lit("not_relevant")),
        at=pl.lit(AT),
        curation=pl.lit(curation),
        comment=pl.lit(""),
    )
    write_labels(nights.workspace.store, labels.unique(["query_hash", "text_hash"]).select(*schemas.HUMAN.columns))


def calibrate(nights: Nights, curation: str, out: Path | None = None, **wanted: Any) -> Made:
    workspace = nights.workspace
    return calibrate_curation(workspace, load_curation(workspace.store, curation), Wanted(**wanted), out)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Nights, Path, str]:
    """A curation without a calibration, of which people labelled every candidate."""
    folder = tmp_path_factory.mktemp("calibrated")
    nights = Nights(folder)
    (source,) = sources(folder, 12)
    curation = nights.curate(source, similarity={}).curation
    label_all(nights, curation)
    return nights, source, curation


def test_a_calibration_of_peoples_labels_is_kept_written_and_decides(
    labelled: tuple[Nights, Path, str], tmp_path: Path
) -> None:
    nights, source, curation = labelled
    made = calibrate(nights, curation, tmp_path / "made.json")
    assert made.calibration.origin.labels_from == "people"
    assert set(made.calibration.origin.judges) == {"llm"}
    assert newest_calibration(nights.workspace.store, "animals").digest == made.calibration.digest
    assert json.loads((tmp_path / "made.json").read_text())["counts"]["labels"] == made.calibration.counts.labels
    assert made.page.startswith(f"# Calibration of {curation}\n")
    again = calibrate(nights, curation)
    assert (again.record, again.calibration) == (made.record, made.calibration)  # nothing new is kept

    asked = len(nights.judge.asked)
    for named in ("latest", str(tmp_path / "made.json")):
        done = nights.curate(source, similarity={}, calibration=named, decide={"precision": 0.6})
        assert len(nights.judge.asked) == asked  # every answer is in the ledger
    report = (done.folder / "report.html").read_text()
    assert '<h2 id="h-calibration">Calibration</h2>' in report
    assert "for precision 0.6" in report
    assert done.summary["calibration"]["by_machine"] is False
    p = table(nights, done.curation, "combine-llm", "combined").sort(schemas.VERDICTS.key)
    decisions = table(nights, done.curation, "decide", "decisions").sort(schemas.VERDICTS.key)
    assert decisions["score"].equals(p["score"])
    threshold = made.calibration.threshold_for(precision=0.6)
    found = decisions.filter(pl.col("state") == "relevant")
    assert threshold is not None
    assert 0 < found.height == decisions.filter(pl.col("score") >= threshold).height
    rest = decisions.filter(pl.col("score") < threshold, pl.col("state") != "unparsed")
    assert set(rest["state"]) <= {"unsure", "not_relevant"}
    assert rest.filter(pl.col("state") == "not_relevant")["score"].max() < 0.4  # type: ignore[operator]


@pytest.mark.parametrize("price", [{"f1": True}, {"recall": 0.8}, {"precision": 0.6}])
def test_a_pair_is_settled_before_the_last_judge_only_where_its_own_p_keeps_the_price(
    labelled: tuple[Nights, Path, str], price: dict[str, Any]
) -> None:
    nights, source, curation = labelled
    calibrate(nights, curation)
    tiers = [{**tier(), "engine": {"model": str(nights.folder / "model")}, "escalate": {}}]
    done = nights.curate(source, similarity={}, tiers=tiers, calibration="latest", decide=price)
    first = table(nights, done.curation, "combine-similarity", "combined")
    open_ = table(nights, done.curation, "escalate-llm", "escalated").select("query_id", "doc_id")
    settled = first.join(open_, on=["query_id", "doc_id"], how="anti")["score"]
    assert open_.height > 0
    if "precision" in price:
        assert settled.filter(settled.is_between(0.4, 0.6)).is_empty()
    else:
        assert settled.is_empty()  # such a price leaves nothing unsure, so all are asked about


def test_a_price_that_no_threshold_reaches_relabels_nothing_and_says_so(
    labelled: tuple[Nights, Path, str], tmp_path: Path
) -> None:
    nights, source, curation = labelled
    made = calibrate(nights, curation, tmp_path / "made.json").calibration
    (tmp_path / "made.json").write_text(made.model_copy(update={"sweep": made.sweep[:1]}).model_dump_json())
    done = nights.curate(source, similarity={}, calibration=str(tmp_path / "made.json"), decide={"precision": 0.9})
    assert made.sweep[0].precision.value < 0.9  # type: ignore[operator]  # it calls everything relevant
    assert table(nights, done.curation, "decide", "decisions").filter(pl.col("state") == "relevant").is_empty()
    assert "decide.precision: no threshold of the calibration reaches 0.9; nothing is called relevant" in nights.said


def test_another_encoder_and_another_judge_are_refused_with_what_to_run(labelled: tuple[Nights, Path, str]) -> None:
    nights, source, curation = labelled
    made = calibrate(nights, curation)
    workspace = nights.workspace
    for changes, told in (
        ({"encoder": {"model": str(nights.folder / "model"), "query_prompt": "query: "}}, "of another encoder"),
        ({"tiers": [{**tier("other"), "engine": {"model": str(nights.folder / "model")}}]}, "knows no tier 'other'"),
        (
            {"tiers": [{**tier(judge={"protocol": "graded"}), "engine": {"model": str(nights.folder / "model")}}]},
            "tier 'llm' is another judge",
        ),
    ):
        config = nights.config(source, calibration="latest", **changes)
        with pytest.raises(ConfigError, match=rf"(?s){told}.*reneg calibrate CURATION"):
            prepare(workspace, draft_curation(workspace, config, own_file=True))
    assert made.calibration.origin.encoder


def test_without_labels_a_calibration_is_refused_and_says_where_they_can_come_from(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 6)
    curation = nights.curate(source, similarity={}).curation
    with pytest.raises(ConfigError, match=r"no calibration. people: at least 20 labels expected.*0 came.* known: "):
        calibrate(nights, curation)
    with pytest.raises(ConfigError, match="--from strong: animals-000001 has the labels of people, known, data, llm"):
        calibrate(nights, curation, labels_from="strong")
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        calibrate(nights, curation, tmp_path)
    config = nights.config(source, calibration="latest")
    with pytest.raises(ConfigError, match="holds no calibration of 'animals' yet; run `reneg curate` without"):
        prepare(nights.workspace, draft_curation(nights.workspace, config, own_file=True))


def test_the_strong_judges_verdicts_are_labels_too_and_it_decides_where_it_was_asked(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 12)
    model = {"engine": {"model": str(nights.folder / "model")}}
    strict = {"prompt": "yes_no_as_good", "relevant_from": 0.85, "not_relevant_below": 0.85}
    tiers = [{**tier("weak"), **model}, {**tier("strong", strict, max_pairs=45), **model}]
    curation = nights.curate(source, similarity={}, tiers=tiers).curation
    made = calibrate(nights, curation, labels_from="strong")
    assert made.calibration.origin.labels_from == "strong"
    assert made.calibration.combiner.tiers == ("weak",)
    assert "a machine: precision and recall are against its opinion" in made.page
    done = nights.curate(source, similarity={}, tiers=tiers, calibration="latest", decide={"f1": True})
    strong = table(nights, done.curation, "judge-strong", "verdicts").filter(pl.col("score").is_not_null())
    decisions = table(nights, done.curation, "decide", "decisions")
    both = strong.select("query_id", "doc_id", said="score").join(decisions, on=["query_id", "doc_id"])
    assert both.height == strong.height
    assert (both["said"] - both["score"]).abs().max() < 1e-5  # type: ignore[operator]


def write_rows_with_two_positives(folder: Path) -> Path:
    folder.mkdir(parents=True)
    rows = [
        {
            "query_id": f"q{n}",
            "query": f"where does the {animal} live",
            "positive_passages": [
                {"docid": f"{n}-{place}", "title": "", "text": f"The {animal} lives near the {place} of {n}."}
                for place in ("river", "lake")
            ],
            "negative_passages": [
                {"docid": f"{n}-n{m}", "title": "", "text": f"The {animal} eats {m} fish."} for m in range(2)
            ],
        }
        for n, animal in enumerate(ANIMALS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_without_any_labels_the_data_itself_gives_some_which_rank_and_decide_nothing(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    source = write_rows_with_two_positives(tmp_path / "source")
    settings = {"similarity": {}, "ingest": {"query_parts": 2, "passage_parts": 2}, "sample": {"size": 5}}
    curation = nights.curate(source, **settings).curation
    made = calibrate(nights, curation)
    assert (made.calibration.origin.labels_from, made.calibration.origin.judges) == ("data", {})
    done = nights.curate(source, **settings, calibration="latest")
    stages = {run.name for run in done.runs}
    assert "combine-similarity" in stages
    assert "combine-llm" not in stages
    asked = table(nights, done.curation, "judge-llm", "verdicts")
    decisions = table(nights, done.curation, "decide", "decisions")
    assert decisions.filter(pl.col("call_id").is_null()).filter(pl.col("state") != "unsure").is_empty()
    assert asked.height == decisions.filter(pl.col("call_id").is_not_null()).height
    assert "ranks the candidates for the judges and decides nothing" in (done.folder / "report.html").read_text()
    with pytest.raises(ConfigError, match=r"decide.precision: the calibration rests on what the data itself tells"):
        nights.curate(source, **settings | {"decide": {"precision": 0.9}}, calibration="latest")
