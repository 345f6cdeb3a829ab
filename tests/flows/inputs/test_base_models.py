"""The models that trainings start from are kept once, by their digest."""

from pathlib import Path

from flows.inputs.base_models import keep_base, stored_base
from infra.storage.store import Store


def test_a_model_is_written_once_and_found_again(tmp_path: Path) -> None:
    store, folder = Store.open(str(tmp_path / "store")), tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    unknown = stored_base(store, "abc")
    assert (unknown.name, dict(unknown.files)) == ("model", {})
    kept = keep_base(store, "abc", unknown, folder)
    assert list(kept.files) == ["config.json"]
    assert stored_base(store, "abc") == kept
    assert keep_base(store, "abc", kept, tmp_path / "gone") == kept
