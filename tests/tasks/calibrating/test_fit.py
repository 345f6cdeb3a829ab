"""A calibration of a curation: which labels it rests on, and the files it writes."""

from pathlib import Path

import polars as pl
import pytest

from tasks.calibrating.combine import FILE
from tasks.calibrating.fit import PAGE_FILE, FitConfig, fit, label_by, label_known, label_people, trust_in
from tasks.schemas import FEATURES, HUMAN, KNOWN, SAMPLES, VERDICTS
from tasks.verdicts.calibration import Calibration
from tasks.verdicts.combiner import NotEnoughLabels
from tests.tasks.calibrating.test_combine import verdicts
from tests.tasks.verdicts.fitting.pairs import make_pairs

PAIRS = make_pairs(queries=30)
FEATURES_OF_ALL = PAIRS.select(*FEATURES.columns)
CONFIG = FitConfig(tiers=("weak", "strong"), judges={"weak": "w", "strong": "s"}, encoder="e", curation="c-000001")


def human(pairs: pl.DataFrame, label: pl.Expr) -> pl.DataFrame:
    made = pairs.select(
        "query_hash", "text_hash", annotator=pl.lit("ann"), label=label, at=pl.lit("2026-01-01T00:00:00Z"),
        curation=pl.lit("c-000001"), comment=pl.lit(""),
    )  # fmt: skip
    return made.select(*HUMAN.columns)


TRUE = pl.when("relevant").then(pl.lit("relevant")).otherwise(pl.lit("not_relevant"))


def made(tmp_path: Path, config: FitConfig, people: pl.DataFrame, known: pl.DataFrame | None = None) -> Calibration:
    strong = verdicts("strong", PAIRS).with_columns(
        state=pl.when(pl.col("score") > 0.5).then(pl.lit("relevant")).otherwise(pl.lit("not_relevant"))
    )
    said = pl.concat([verdicts("weak", PAIRS), strong])
    tables = {"features": FEATURES_OF_ALL, "llm_verdicts": said, "samples": SAMPLES.empty(), "human": people}
    tables["known"] = KNOWN.empty() if known is None else known
    assert fit(config, out=tmp_path, **tables) == {}
    return Calibration.model_validate_json((tmp_path / FILE).read_text())


def test_labels_of_people_come_first_and_are_named(tmp_path: Path) -> None:
    found = made(tmp_path, CONFIG, human(PAIRS, TRUE))
    assert (found.origin.labels_from, found.origin.encoder, found.origin.curation) == ("people", "e", "c-000001")
    assert (found.counts.labels, found.counts.queries, found.combiner.tiers) == (600, 30, ("weak", "strong"))
    assert not found.by_machine
    page = (tmp_path / PAGE_FILE).read_text()
    assert "Fitted on 600 labels" in page
    assert "from people. Labels of people" in page


def test_with_few_labels_of_people_the_last_of_several_tiers_gives_them_and_the_page_says_so(tmp_path: Path) -> None:
    found = made(tmp_path, CONFIG, human(PAIRS.head(10), TRUE))
    assert (found.origin.labels_from, found.combiner.tiers, found.by_machine) == ("strong", ("weak",), True)
    assert "a machine: precision and recall are against its opinion" in (tmp_path / PAGE_FILE).read_text()
    assert "machine" not in trust_in("people")


def test_too_few_labels_are_refused_with_their_number_and_where_others_come_from(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughLabels, match=r"people: at least 20 labels expected.*10 came"):
        made(tmp_path, CONFIG.model_copy(update={"labels_from": "people"}), human(PAIRS.head(10), TRUE))
    alone = CONFIG.model_copy(update={"tiers": ("strong",)})
    with pytest.raises(NotEnoughLabels, match=r"no calibration. people: .*0 came"):
        made(tmp_path, alone, HUMAN.empty())


def test_what_is_known_in_advance_labels_all_pairs_and_the_page_says_what_that_is_worth(tmp_path: Path) -> None:
    known = PAIRS.filter("relevant").select(*KNOWN.columns)
    found = made(tmp_path, CONFIG, HUMAN.empty(), known)
    assert (found.origin.labels_from, found.counts.labels, found.counts.relevant) == ("known", 600, known.height)
    assert "every other pair counts as not relevant" in (tmp_path / PAGE_FILE).read_text()
    assert label_known(FEATURES_OF_ALL, KNOWN.empty()).is_empty()


def test_a_drawn_pair_weighs_one_over_its_probability_of_being_drawn_and_labelled() -> None:
    pairs = PAIRS.head(4)
    drawn = pairs.head(3).select(
        "dataset", "query_id", "doc_id",
        stratum=pl.Series(["a", "a", "b"]), inclusion_probability=pl.Series([0.1, 0.1, 0.5]), annotator=pl.lit(""),
    )  # fmt: skip
    label = pl.Series(["relevant", "unsure", "not_relevant", "relevant"])
    people = human(pairs.with_columns(label=label), pl.col("label"))
    found = label_people(FEATURES_OF_ALL, drawn.select(*SAMPLES.columns), people)
    weights = dict(found.select("doc_id", "weight").iter_rows())
    # One of the two pairs drawn from "a" has a clear label, so it stands for 20; the last was not drawn.
    assert weights == {"d0": pytest.approx(20), "d2": pytest.approx(2), "d3": 1.0}
    assert dict(found.select("doc_id", "relevant").iter_rows()) == {"d0": True, "d2": False, "d3": True}


def test_a_tiers_clear_verdicts_are_labels() -> None:
    states = pl.Series(["relevant", "not_relevant", "unsure", "unparsed"])
    said = verdicts("strong", PAIRS.head(4)).with_columns(state=states)
    assert label_by("strong", said).select("doc_id", "relevant").rows() == [("d0", True), ("d1", False)]
    assert label_by("weak", said).is_empty()
    assert VERDICTS.empty().join(said, on=["doc_id"]).is_empty()
