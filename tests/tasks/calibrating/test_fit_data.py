"""A calibration of what the data itself tells."""

from pathlib import Path

import pytest

from tasks.calibrating.combine import FILE
from tasks.calibrating.fit import PAGE_FILE, FitConfig
from tasks.calibrating.fit_data import fit_data
from tasks.verdicts.calibration import Calibration
from tasks.verdicts.combiner import NotEnoughLabels
from tests.tasks.verdicts.fitting.test_from_data import collection

CONFIG = FitConfig(tiers=("llm",), judges={"llm": "x"}, encoder="e", curation="c-000001")


def test_it_covers_similarity_alone_says_where_its_labels_come_from_and_how_little_they_prove(tmp_path: Path) -> None:
    assert fit_data(CONFIG, out=tmp_path, **collection(60, floor=0.85)) == {}
    made = Calibration.model_validate_json((tmp_path / FILE).read_text())
    assert (made.origin.labels_from, made.origin.encoder, made.combiner.tiers) == ("data", "e", ())
    assert made.by_machine
    page = (tmp_path / PAGE_FILE).read_text()
    assert "from the data itself. The labels come from the data itself" in page
    assert "Similarity is the only judge." in page


def test_data_without_queries_with_several_positives_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughLabels, match="at least 20 labels expected"):
        fit_data(CONFIG, out=tmp_path, **collection(1, floor=0.0))
