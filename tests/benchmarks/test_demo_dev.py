"""The demo's calibration was fitted on other queries than the demo's, judged in the same way."""

from pathlib import Path

import flows.config
from flows.config.load import load_config
from flows.inputs.calibration import parse_calibration
from tasks.verdicts.calibration import Point
from tests.conftest import ROOT

CONFIGS = Path(flows.config.__file__).parent
DEMO = load_config(CONFIGS / "demo.yaml")
DEV = load_config(ROOT / "benchmarks" / "demo_dev.yaml")
SHIPPED = "demo.calibration.json"


def test_no_query_of_the_demo_is_one_of_those_that_calibrate_it() -> None:
    demo, dev = DEMO.source.harvest, DEV.source.harvest
    assert demo is not None and dev is not None
    chosen = {"train_queries", "train_shared", "test_queries", "test_shared", "skip_shared", "skip_unique"}
    assert demo.model_dump(exclude=chosen) == dev.model_dump(exclude=chosen)
    assert (demo.skip_shared, demo.skip_unique) == (0, 0)
    assert dev.skip_shared >= demo.train_shared + demo.test_shared
    assert dev.skip_unique >= demo.train_queries + demo.test_queries - demo.train_shared - demo.test_shared


def test_candidates_and_judges_are_those_of_the_demo() -> None:
    for name in ("encoder", "encode", "search", "mine", "policies"):
        assert getattr(DEV, name) == getattr(DEMO, name), name
    assert DEV.ingest.model_dump(exclude={"dataset"}) == DEMO.ingest.model_dump(exclude={"dataset"})
    assert [(tier.name, tier.engine, tier.judge) for tier in DEV.tiers] == [
        (tier.name, tier.engine, tier.judge) for tier in DEMO.tiers
    ]


def test_the_shipped_calibration_reaches_the_demos_price_on_queries_that_it_did_not_see() -> None:
    assert DEMO.calibration == "package:demo"
    made = parse_calibration((CONFIGS / SHIPPED).read_bytes(), SHIPPED)
    assert (made.origin.labels_from, made.separates, made.combiner.tiers) == ("known", True, ("llm",))
    threshold = made.threshold_for(**DEMO.decide.price)
    (reached,) = (point for point in made.sweep if point.threshold == threshold)
    assert isinstance(reached, Point)
    assert reached.precision.value is not None and reached.recall.value is not None
    assert reached.precision.value >= 0.7
    assert reached.recall.value >= 0.5
