"""Curations and deployed configurations as records of the store."""

from pathlib import Path
from typing import Any

import pytest

from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.curation.records import (
    failures_of,
    keep_config,
    load_curation,
    open_curation,
    read_config,
    record_failure,
)
from flows.stages import JUDGE
from infra.stages import part_keys
from infra.stages.runner import PartSpec
from infra.storage.store import Store
from tests.flows.curation.hub import ask_hub, serving
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


# What the version before 'dev splits', 'fields' and the counted rejects recorded for these settings. Some defaults have
# other values since, on purpose: they are named here as they were.
FORMER = {
    "similarity": {"relevant_from": 0.8, "not_relevant_below": 0.15},
    "tiers": [{"escalate": {"states": ["unsure"]}}],
    "train": {"max_seq_length": 128},
    "evaluate": {"max_seq_length": 128},
}
SHORT = {"name": "mine", "source": {"path": "rows.jsonl"}, **FORMER}
LONG = {
    **SHORT,
    "treatments": ["default", "remove", "remove_hn", "relabel"],
    "tiers": [
        {"name": "llm", "engine": {"model": "tiny:llm"}, "escalate": {"states": ["unsure"]}},
        {
            "name": "far",
            "engine": {"kind": "openai", "model": "m", "base_url": "http://localhost:1"},
            "escalate": {"states": ["unsure"]},
        },
    ],
    "train": {"steps": 3, "max_seq_length": 128},
    "gold": {"path": "gold.jsonl"},
    "promote": {"treatment": "relabel", "against": "default", "measure": "nDCG@10", "require": "better"},
    "nightly": {"cron": "30 2 * * *", "timezone": "Europe/Berlin"},
}


@pytest.mark.parametrize(
    ("settings", "identity"),
    [(SHORT, "057f7640c8302ec9999cd15e02077c26"), (LONG, "f5a2e27f557c478869b4ec8ac94ac089")],
)
def test_a_curation_of_an_earlier_version_is_the_same_curation(settings: dict[str, Any], identity: str) -> None:
    # A new setting without the mark `keyed_when_set` would begin each curation again, under the next number.
    semantic = part_keys.semantic(parse_config(settings, "test"))
    assert part_keys.digest({"config": semantic, "source": None}) == identity


def test_the_reason_of_a_failed_part_is_recorded_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASS", "hunter2!")
    store = Store.open(str(tmp_path / "store"))
    part = PartSpec(JUDGE, "judge-llm-00003", 3, 3, "key", 0, {}, {}, {})
    record_failure(store, "mine-000001", part, "OSError: hunter2! was refused")
    assert failures_of(store, "mine-000001") == {("judge-llm", 3): "OSError: *** was refused"}


def test_the_commit_of_a_data_set_of_a_hub_is_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({"train.jsonl": b"{}\n"}) as hub:
        ask_hub(monkeypatch, hub.address)
        workspace = Nights(tmp_path).workspace
        found = open_curation(workspace, config(source={"path": "hf://owner/name@v1"}), own_file=True)
        again = open_curation(workspace, config(source={"path": "hf://owner/name@v1"}), own_file=True)
    wanted = f"hf://datasets/owner/name@{'b' * 40}"
    assert found.read_from == again.read_from == wanted
    assert load_curation(workspace.store, found.id).read_from == wanted
    assert found.id == again.id
