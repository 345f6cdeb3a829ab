"""What a configuration must hold, and what contradicts itself."""

from flows.config.load import parse_config
from tests.flows.settings import MINIMAL, refuse


def test_a_name_and_a_source_are_enough_and_the_dataset_takes_the_name() -> None:
    config = parse_config(MINIMAL, "my.yaml")
    assert config.ingest.dataset == "mine"
    assert config.treatments == ("default", "remove", "remove_hn", "relabel")


def test_a_margin_out_of_range_is_refused_with_its_bounds() -> None:
    message = refuse({"mine": {"relative_margin": 95}})
    assert message.startswith("my.yaml: mine: relative_margin must be between 0 and 1, got 95")


def test_exactly_one_source_is_demanded() -> None:
    assert "give either source.path or source.harvest" in refuse({"source": {}})


def test_training_needs_its_treatments() -> None:
    assert "train_on names ['relabel']" in refuse({"treatments": ["default"]})
