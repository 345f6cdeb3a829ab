"""Curations and deployed configurations as records of the store."""

from pathlib import Path
from typing import Any

import pytest

from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.curation.records import keep_config, read_config
from infra.storage.store import Store
from tests.flows.nightly import Nights, sources


def config(**changes: Any) -> Any:
    return parse_config({"name": "mine", "source": {"path": "/rows.jsonl"}, **changes}, "test")


def test_the_newest_configuration_of_a_name_is_read_back_as_it_was(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    assert keep_config(store, config()) == "configs/mine/000001.json"
    changed = config(
        nightly={"cron": "0 3 * * *", "timezone": "Europe/Berlin"}, treatments=["default"], train_on=["default"]
    )
    assert keep_config(store, changed) == "configs/mine/000002.json"
    assert keep_config(store, changed) == "configs/mine/000002.json"
    assert read_config(store, "mine") == changed
    assert keep_config(store, config()) == "configs/mine/000003.json"  # going back is a new number
    assert read_config(store, "mine") == config()


def test_a_name_that_was_never_deployed_is_told_with_those_that_were(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    with pytest.raises(ConfigError, match="none is deployed here"):
        read_config(store, "mine")
    keep_config(store, config())
    with pytest.raises(ConfigError, match=r"deployed here: mine\. Run `reneg deploy"):
        read_config(store, "other")


def test_a_new_curation_has_a_number_above_all_others_whoever_gave_them(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 5)
    nights.workspace.store.create("curations/animals-000004/curation.json", b"{}")
    assert nights.curate(source).curation == "animals-000005"
