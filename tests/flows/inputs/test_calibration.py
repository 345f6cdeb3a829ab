"""The calibration that a configuration names: where it may lie, and its copy in the store."""

from pathlib import Path

import pytest

from flows.config.curation import CurationConfig
from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.inputs import calibration as module
from flows.inputs.calibration import (
    keep_calibration,
    keep_file,
    newest_calibration,
    parse_calibration,
    read_kept,
    record_calibration,
)
from infra.storage.store import Store
from tests.tasks.calibrating.test_combine import fitted


def config(named: str | None, name: str = "animals") -> CurationConfig:
    settings = {"name": name, "source": {"path": "x"}, "calibration": named}
    return parse_config(settings, "test")


def test_a_file_is_copied_once_and_a_copy_serves_where_the_file_is_gone(tmp_path: Path) -> None:
    store, file, said = Store.open(str(tmp_path / "store")), tmp_path / "made.json", list[str]()
    file.write_text(fitted().model_dump_json())
    kept = keep_calibration(store, config(str(file)), None)
    assert kept == keep_file(store, fitted())
    found = read_kept(store, kept)
    assert found is not None
    assert found.calibration == fitted()
    file.unlink()
    assert keep_calibration(store, config(str(file)), kept, said.append) == kept
    assert "the copy of the last execution is used" in said[0]
    with pytest.raises(ConfigError, match="cannot be read"):
        keep_calibration(store, config(str(file)), None)
    assert keep_calibration(store, config(None), None) is None
    assert read_kept(store, None) is None


def test_latest_is_the_newest_of_the_name_also_for_its_preview_and_the_same_is_kept_once(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    with pytest.raises(ConfigError, match="no calibration of 'animals' yet"):
        keep_calibration(store, config("latest"), None)
    assert record_calibration(store, "animals", fitted()) == "calibrations/animals/000001.json"
    assert record_calibration(store, "animals", fitted()) == "calibrations/animals/000001.json"
    other = fitted().model_copy(update={"datasets": ("other",)})
    assert record_calibration(store, "animals", other) == "calibrations/animals/000002.json"
    assert newest_calibration(store, "animals") == other
    kept = keep_calibration(store, config("latest", "animals-preview"), None)
    assert kept == keep_file(store, other)


def test_a_record_of_another_version_is_followed_by_a_new_one_and_refused_by_name(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.create("calibrations/animals/000001.json", b'{"format": 2, "origin": {"at": "now"}}')
    with pytest.raises(ConfigError, match=r"000001\.json: a calibration of this version .* another version of Reneg"):
        newest_calibration(store, "animals")
    assert record_calibration(store, "animals", fitted()) == "calibrations/animals/000002.json"
    assert newest_calibration(store, "animals") == fitted()


def test_a_shipped_one_lies_beside_the_shipped_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(tmp_path / "store"))
    monkeypatch.setattr(module, "_SHIPPED_IN", tmp_path)
    (tmp_path / "toy.calibration.json").write_text(fitted().model_dump_json())
    assert keep_calibration(store, config("package:toy"), None) == keep_file(store, fitted())
    with pytest.raises(ConfigError, match="package:none cannot be read"):
        keep_calibration(store, config("package:none"), None)
    with pytest.raises(ConfigError, match="a name of letters, digits and dashes expected"):
        keep_calibration(store, config("package:../toy"), None)


def test_what_is_no_calibration_is_refused_with_what_makes_one() -> None:
    with pytest.raises(ConfigError, match=r"mine\.json: a calibration of this version expected .*reneg calibrate"):
        parse_calibration(b'{"format": 2}', "mine.json")
