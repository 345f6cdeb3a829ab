"""Validation by simulated people: what it estimates from a sample is what holds in the whole pool."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tasks import clustered
from tasks.agreement import kappa_interval
from tasks.quality import validate as validate_module
from tasks.quality.labels import PeopleConfig, agree_with_people, label_pairs, settle
from tasks.quality.sample import SampleConfig, _choose, shortlist, with_strata
from tasks.quality.validate import PAGE_FILE, SUMMARY_FILE, ValidateConfig, _show, _thresholds, validate
from tasks.schemas import CANDIDATES, HUMAN, SAMPLES, VALIDATION, VERDICTS
from tests.tasks.records import mutable_records
from tests.tasks.settings import settings_of

PAIR = ["dataset", "query_id", "doc_id"]


@dataclass
class World:
    """A pool of candidates whose truth is known, as the judges see it."""

    candidates: pl.DataFrame
    similarity: pl.DataFrame
    llm_verdicts: pl.DataFrame
    decisions: pl.DataFrame
    relevant: np.ndarray

    @classmethod
    def make(cls, seed: int = 0, pairs: int = 600, datasets: int = 1) -> "World":
        """One pair in ten is relevant; scores are noisy; the language model is asked about the nearer half."""
        rng = np.random.default_rng(seed)
        relevant = rng.random(pairs) < 0.1
        near = np.clip(0.3 + 0.3 * relevant + rng.normal(0, 0.15, pairs), 0, 1)
        said = np.clip(0.2 + 0.6 * relevant + rng.normal(0, 0.2, pairs), 0, 1)
        asked = near >= np.median(near)
        ids = [(f"d{i % datasets}", f"q{i // 10}", f"p{i}") for i in range(pairs)]
        candidates = [(*id_, f"t{i}", f"h{i // 10}", "p", "dense", 1, 0.5) for i, id_ in enumerate(ids)]

        def verdicts(tier: str, scores: Any, calls: Any, at: float) -> pl.DataFrame:
            rows = [
                (*ids[i], tier, "j", "relevant" if scores[i] >= at else "not_relevant", float(scores[i]), None, None,
                 f"c{i}" if calls[i] else None, 1)
                for i in range(pairs)
            ]  # fmt: skip
            return pl.DataFrame(rows, schema=VERDICTS.columns, orient="row")

        scores = np.where(asked, said, near / 2)
        return cls(
            pl.DataFrame(candidates, schema=CANDIDATES.columns, orient="row"),
            verdicts("similarity", near, asked & False, 0.5),
            verdicts("llm", said, asked, 0.5).filter(pl.Series(asked)),
            verdicts("cascade", scores, asked, 0.5),
            relevant,
        )

    def sample(self, size: int, seed: int = 0) -> pl.DataFrame:
        config = SampleConfig(size=size, seed=seed)
        drawn = _choose(config, *shortlist(config, candidates=self.candidates, decisions=self.decisions).values())
        return drawn.with_columns(annotator=pl.lit("")).select(*SAMPLES.columns).sort(SAMPLES.key)

    def labels(self, pairs: pl.DataFrame, annotator: str = "ada", wrong: float = 0.0, seed: int = 0) -> pl.DataFrame:
        """What a person says of these pairs, mistaken at a rate."""
        rng = np.random.default_rng(seed)
        truth = self.candidates.with_columns(relevant=pl.Series(self.relevant))
        given = truth.join(pairs, on=["dataset", "query_id", "doc_id"], how="semi").sort("query_hash", "text_hash")
        flip = rng.random(given.height) < wrong
        said = ["relevant" if r != f else "not_relevant" for r, f in zip(given["relevant"], flip, strict=True)]
        return given.with_columns(
            annotator=pl.lit(annotator),
            label=pl.Series(said, dtype=pl.String),
            at=pl.lit("2026-01-01T00:00:00Z"),
            curation=pl.lit("c-000001"),
            comment=pl.lit(""),
        ).select(*HUMAN.columns)

    def truth(self, called: str = "decisions") -> dict[str, float]:
        """Precision, recall and share of the whole pool."""
        flagged = (getattr(self, called)["state"] == "relevant").to_numpy()
        hits = float((flagged & self.relevant).sum())
        return {
            "precision": hits / flagged.sum(),
            "recall": hits / self.relevant.sum(),
            "missed_share": (self.relevant & ~flagged).sum() / (~flagged).sum(),
        }


def run(
    world: World, samples: pl.DataFrame, human: pl.DataFrame, out: Path, **settings: Any
) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, Any]]:
    table = validate(
        ValidateConfig(**settings),
        candidates=world.candidates,
        similarity=world.similarity,
        llm_verdicts=world.llm_verdicts,
        decisions=world.decisions,
        samples=samples,
        human=human,
        out=out,
    )["validation"]
    assert dict(table.schema) == VALIDATION.columns
    rows = {(row["subject"], row["measure"]): row for row in table.iter_rows(named=True)}
    return rows, json.loads((out / SUMMARY_FILE).read_text())


def test_with_every_pair_labelled_the_estimates_are_the_truth_itself(tmp_path: Path) -> None:
    world = World.make()
    samples = world.sample(600)
    rows, _ = run(world, samples, world.labels(samples), tmp_path)
    for measure, truth in world.truth().items():
        row = rows["cascade", measure]
        assert row["value"] == pytest.approx(truth)
        assert row["low"] < truth < row["high"]  # other queries like these may differ
    assert rows["pool", "relevant_share"]["value"] == pytest.approx(world.relevant.mean())
    assert {subject for subject, _ in rows} == {"cascade", "llm", "similarity", "pool", "people"}


@pytest.mark.parametrize("datasets", [1, 12])
def test_the_intervals_of_a_sample_of_100_cover_the_truth_of_600(
    datasets: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve datasets make two or three labels a stratum: the case in which stratified intervals are too narrow."""
    monkeypatch.setattr(clustered, "DRAWS", 400)
    monkeypatch.setattr("tasks.quality.validate._SHARES", ())
    covered = dict.fromkeys(("precision", "recall", "missed_share", "share"), 0)
    repeats = 50
    for seed in range(repeats):
        world = World.make(seed, datasets=datasets)
        samples = world.sample(100, seed)
        rows, _ = run(world, samples, world.labels(samples), tmp_path, seed=seed)
        found = {measure: rows["cascade", measure] for measure in ("precision", "recall", "missed_share")}
        truth = {**world.truth(), "share": world.relevant.mean()}
        for measure, row in {**found, "share": rows["pool", "relevant_share"]}.items():
            covered[measure] += row["low"] - 1e-9 <= truth[measure] <= row["high"] + 1e-9
    assert {measure for measure, count in covered.items() if count < 0.88 * repeats} == set()


def test_flagged_rows_alone_would_say_nothing_of_what_was_missed(tmp_path: Path) -> None:
    """The paper's sample: precision is known, recall is anything."""
    world = World.make()
    samples = world.sample(600)
    flagged = samples.filter(pl.col("stratum").str.contains("/relevant/"))
    rows, _ = run(world, samples, world.labels(flagged), tmp_path)
    assert rows["cascade", "precision"]["value"] == pytest.approx(world.truth()["precision"])
    assert rows["cascade", "recall"]["value"] is None
    assert rows["pool", "relevant_share"]["value"] is None or rows["pool", "relevant_share"]["high"] > 0.3


def test_of_several_people_the_majority_counts_and_their_agreement_is_measured(tmp_path: Path) -> None:
    world = World.make()
    samples = world.sample(150)
    people = [world.labels(samples, name, wrong, seed) for seed, (name, wrong) in enumerate(
        {"ada": 0.0, "bob": 0.1, "cy": 0.1}.items()
    )]  # fmt: skip
    rows, summary = run(world, samples, pl.concat(people), tmp_path)
    assert 0.3 < rows["people", "alpha"]["value"] < 1
    assert rows["ada and bob", "kappa"]["labels"] == 150
    assert rows["bob and cy", "kappa"]["value"] < rows["ada and bob", "kappa"]["value"] + 0.2
    assert summary["counts"]["annotators"] == ["ada", "bob", "cy"]
    assert summary["counts"]["labels"] == 450
    assert summary["counts"]["clear"] == 150


def test_unsure_ties_and_labels_of_other_pairs_are_counted_and_not_taken_for_an_answer(tmp_path: Path) -> None:
    world = World.make()
    samples = world.sample(100)
    ada = world.labels(world.candidates)  # everything, also what was not drawn
    bob = ada.with_columns(
        annotator=pl.lit("bob"),
        label=pl.when(pl.col("label") == "relevant").then(pl.lit("not_relevant")).otherwise(pl.lit("not_relevant")),
    )
    _, summary = run(world, samples, pl.concat([ada, bob]), tmp_path)
    counts = summary["counts"]
    assert counts["labels_elsewhere"] == 2 * 500
    assert counts["labelled"] == 100
    assert counts["of_these_tied"] == counts["unsure"] == 100 - counts["clear"] > 0


def test_a_label_counts_wherever_the_same_texts_stand(tmp_path: Path) -> None:
    world = World.make()
    samples = world.sample(100)
    human = world.labels(samples)
    moved = World(**{**vars(world), "candidates": world.candidates.with_columns(text_hash=pl.lit("other"))})
    assert run(world, samples, human, tmp_path)[1]["counts"]["labelled"] == 100
    with pytest.raises(ValueError, match="at least 20 sampled pairs expected, 0 came"):
        run(moved, samples, human, tmp_path)


def test_too_few_labels_and_a_sample_of_other_verdicts_are_refused(tmp_path: Path) -> None:
    world = World.make()
    samples = world.sample(100)
    with pytest.raises(ValueError, match=r"at least 20 sampled pairs expected, 7 came \(of 100 on the sheet\)"):
        run(world, samples, world.labels(samples).head(7), tmp_path)
    strange = samples.with_columns(stratum=pl.lit("d0/unsure/asked"))
    with pytest.raises(ValueError, match="100 of 100 are elsewhere"):
        run(world, strange, world.labels(samples), tmp_path)


def test_thresholds_reach_the_precision_that_is_asked_for(tmp_path: Path) -> None:
    world = World.make(pairs=2000)
    samples = world.sample(200)
    rows, summary = run(world, samples, world.labels(samples), tmp_path, wanted_precision=(0.7, 1.0))
    found, impossible = summary["thresholds"]["cascade"]
    called = (world.decisions["score"] >= found["sure"]).to_numpy()
    assert world.relevant[called].mean() >= 0.7
    assert found["likely"] <= found["sure"]
    assert found["sure_recall"]["low"] <= world.relevant[called].sum() / world.relevant.sum()
    assert impossible["sure"] is None
    strictest = summary["curves"]["cascade"][0]["precision"]
    assert strictest["value"] == 1.0
    assert strictest["low"] < 0.95, "ten labels that agree are no certainty about twenty-five pairs"
    assert rows["cascade", "kappa"]["value"] > 0.3
    page = (tmp_path / PAGE_FILE).read_text()
    assert "| cascade | precision | 0." in page
    assert "| d0/relevant/asked |" in page


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(ValidateConfig) == {
        "tiers": ("llm",),
        "wanted_precision": (0.8, 0.9, 0.95),
        "min_labels": (20, ">=1"),
        "seed": 0,
        "title": "Validation",
    }


def test_the_curve_goes_through_the_shares_of_the_pool_strictest_first(tmp_path: Path) -> None:
    world = World.make(pairs=200)
    samples = world.sample(200)
    _, summary = run(world, samples, world.labels(samples), tmp_path)
    scores = world.decisions["score"].to_numpy()
    shares = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
    ranks = [int(np.ceil(share * 200)) for share in shares]
    thresholds = sorted({float(np.sort(scores)[::-1][rank - 1]) for rank in ranks}, reverse=True)
    curve = summary["curves"]["cascade"]
    assert [point["threshold"] for point in curve] == pytest.approx(thresholds, abs=1e-6)
    for point, threshold in zip(curve, thresholds, strict=True):
        called = scores >= threshold
        assert point["share"] == pytest.approx(called.mean(), abs=1e-4)
        assert point["labels"] == called.sum()
        assert point["precision"]["value"] == pytest.approx(world.relevant[called].mean(), abs=1e-4)
        assert point["recall"]["value"] == pytest.approx(
            (world.relevant & called).sum() / world.relevant.sum(), abs=1e-4
        )


def test_labels_above_a_threshold_are_those_of_the_sample_alone(tmp_path: Path) -> None:
    world = World.make(pairs=60)
    samples = world.sample(30)
    rows, summary = run(world, samples, world.labels(samples), tmp_path)
    drawn = world.candidates.join(samples, on=["dataset", "query_id", "doc_id"], how="semi")["doc_id"].to_list()
    flagged = world.decisions.filter(state="relevant")["doc_id"].to_list()
    assert summary["curves"]["cascade"][-1]["labels"] == 30
    assert rows["cascade", "precision"]["labels"] == len(set(drawn) & set(flagged))
    assert rows["cascade", "missed_share"]["labels"] == len(set(drawn) - set(flagged))
    assert rows["cascade", "recall"]["labels"] == rows["cascade", "kappa"]["labels"] == 30
    assert rows["pool", "relevant_share"]["labels"] == 30
    assert rows["people", "alpha"] == {
        "subject": "people", "measure": "alpha", "value": None, "low": None, "high": None, "labels": 0
    }  # fmt: skip


def test_kappa_weighs_each_label_by_the_pairs_it_stands_for(tmp_path: Path) -> None:
    world = World.make(pairs=200)
    samples = world.sample(60)
    labels = world.labels(samples)
    rows, _ = run(world, samples, labels, tmp_path)
    drawn = samples.select("dataset", "query_id", "doc_id", weight=1 / pl.col("inclusion_probability"))
    truth = world.candidates.select("dataset", "query_id", "doc_id", relevant=pl.Series(world.relevant))
    both = drawn.join(truth, on=["dataset", "query_id", "doc_id"]).join(
        world.decisions.select("dataset", "query_id", "doc_id", called=pl.col("state") == "relevant"),
        on=["dataset", "query_id", "doc_id"],
    )
    people, judge = both["relevant"].to_list(), both["called"].to_list()
    queries = both["query_id"].to_list()
    weighted = kappa_interval(people, judge, queries, both["weight"].to_list()).value
    plain = kappa_interval(people, judge, queries).value
    assert rows["cascade", "kappa"]["value"] == pytest.approx(weighted)
    assert rows["cascade", "kappa_on_sample"]["value"] == pytest.approx(plain)
    assert weighted != pytest.approx(plain)


def test_report_and_validation_give_the_same_kappa_for_the_same_labels(tmp_path: Path) -> None:
    """Pairs that a judge left unsure or unparsed, and pairs that people are unsure of, are where they once differed."""
    world = World.make(pairs=300)
    states = pl.col("state").replace_strict({"relevant": "relevant"}, default=None)
    odd = pl.int_range(pl.len()) % 3
    left_open = pl.when(odd == 0).then(pl.lit("unsure")).when(odd == 1).then(pl.lit("unparsed")).otherwise("state")
    decisions = world.decisions.with_columns(state=pl.coalesce(states, left_open))
    world = World(**{**vars(world), "decisions": decisions})
    samples = world.sample(150)
    human = world.labels(samples, wrong=0.2).with_columns(
        label=pl.when(pl.int_range(pl.len()) % 10 == 0).then(pl.lit("unsure")).otherwise("label")
    )
    rows, _ = run(world, samples, human, tmp_path)
    people = agree_with_people(
        PeopleConfig(tiers=("llm",)),
        samples=samples,
        labelled=label_pairs(world.candidates, settle(human)).join(samples, on=PAIR, how="semi"),
        similarity=world.similarity,
        llm_verdicts=world.llm_verdicts,
        decisions=decisions,
    )["people"]
    for tier in ("cascade", "llm", "similarity"):
        reported = people.filter(tier=tier).select("kappa", "kappa_low", "kappa_high").row(0)
        assert tuple(rows[tier, "kappa"][name] for name in ("value", "low", "high")) == reported


@dataclass(frozen=True)
class Cut:
    """A table in three parts, by query."""

    frame: pl.DataFrame
    parts: tuple[int, ...] = (0, 1, 2)

    def at(self, part: int) -> pl.DataFrame:
        return self.frame.filter(pl.col("query_id").str.slice(1).cast(pl.Int64) % 3 == part)


def test_parts_that_are_read_one_by_one_give_what_whole_tables_give_to_the_last_digit(tmp_path: Path) -> None:
    world = World.make(pairs=2_000, datasets=2)
    samples = world.sample(200)
    human = world.labels(samples, wrong=0.2)
    names = ("candidates", "similarity", "llm_verdicts", "decisions")
    cut = {name: Cut(getattr(world, name)) for name in names}
    whole = {name: pl.concat(table.at(part) for part in table.parts) for name, table in cut.items()}
    found = []
    for number, tables in enumerate((whole, cut)):
        out = tmp_path / str(number)
        out.mkdir()
        made = validate(ValidateConfig(), samples=samples, human=human, out=out, **tables)
        labelled = label_pairs(world.candidates, settle(human))
        verdicts = {name: tables[name] for name in names[1:]}
        people = agree_with_people(PeopleConfig(), samples=samples, labelled=labelled, **verdicts)
        found.append((made["validation"].rows(), people["people"].rows(), (out / SUMMARY_FILE).read_bytes()))
    assert found[0] == found[1]


def test_where_the_judges_are_wrong_together_is_in_the_page_and_its_json(tmp_path: Path) -> None:
    world = World.make()
    samples = world.sample(300)
    _, summary = run(world, samples, world.labels(samples), tmp_path)
    first, *kinds = summary["shared_errors"]
    assert (first["first"], first["second"], first["kind"]) == ("similarity", "llm", "all")
    assert 0 < first["both_wrong"] <= min(first["first_wrong"], first["second_wrong"])
    assert {row["kind"] for row in kinds} <= {"data set", "language model", "retriever", "rank"}
    assert f"| similarity, llm | all | {first['pairs']} |" in (tmp_path / PAGE_FILE).read_text()


def test_the_strata_and_the_page_count_pairs_and_labels(tmp_path: Path) -> None:
    world = World.make(pairs=60)
    samples = world.sample(60)
    _, summary = run(world, samples, world.labels(samples), tmp_path)
    stratum = with_strata(world.candidates, world.decisions).with_columns(relevant=pl.Series(world.relevant))
    assert summary["strata"] == [
        {"stratum": name, "pairs": pairs, "labelled": pairs, "relevant": relevant}
        for name, pairs, relevant in stratum.group_by("stratum")
        .agg(pl.len(), pl.col("relevant").sum().alias("n"))
        .sort("stratum")
        .iter_rows()
    ]
    lines = (tmp_path / PAGE_FILE).read_text().split("\n\n")
    assert lines[:2] == [
        "# Validation",
        "60 of 60 sampled pairs have a clear label by 1 annotator(s); 0 are unsure, 0 of them by a tie.",
    ]
    assert [line for line in lines if line.startswith("##")] == [
        "## By people's labels", "## Thresholds that reach a precision", "## Where two judges are wrong together",
        "## Strata",
    ]  # fmt: skip


def _point(threshold: float, labels: int, value: float | None, low: float | None) -> dict[str, Any]:
    return {
        "threshold": threshold,
        "labels": labels,
        "precision": {"value": value, "low": low},
        "recall": {"value": 0.5},
    }


def test_the_sure_threshold_is_the_last_before_the_first_that_fails_and_the_likely_one_the_lowest() -> None:
    curve = [
        _point(0.9, 9, 0.1, 0.0),  # too few labels to count
        _point(0.8, 10, 1.0, 0.8),
        _point(0.7, 20, 0.9, 0.9),
        _point(0.6, 30, 0.7, 0.6),
        _point(0.5, 40, 0.9, 0.85),
        _point(0.4, 50, None, None),
    ]
    at_80, at_95 = _thresholds(curve, (0.8, 0.95))
    assert (at_80["sure"], at_80["likely"]) == (0.7, 0.5)
    assert (at_80["sure_recall"], at_80["likely_recall"]) == ({"value": 0.5}, {"value": 0.5})
    assert (at_95["sure"], at_95["sure_recall"], at_95["likely"]) == (None, None, 0.8)


@pytest.mark.parametrize(
    ("interval", "shown"),
    [
        ({"value": None, "low": None, "high": None}, "not defined"),
        ({"value": 0.5, "low": None, "high": None}, "0.500"),
        ({"value": 0.5, "low": 0.25, "high": 1.0}, "0.500 (0.250 to 1.000)"),
    ],
)
def test_figures_without_interval_or_value_are_shown_so(interval: dict[str, Any], shown: str) -> None:
    assert _show(interval) == shown


def test_as_many_labels_as_are_needed_are_enough(tmp_path: Path) -> None:
    world = World.make(pairs=60)
    samples = world.sample(30)
    labels = world.labels(samples)
    assert run(world, samples, labels.head(20), tmp_path)[1]["counts"]["clear"] == 20
    with pytest.raises(ValueError, match="at least 20 sampled pairs expected, 19 came"):
        run(world, samples, labels.head(19), tmp_path)


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(validate_module) == set()
