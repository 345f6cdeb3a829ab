import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.curation.source import import_source
from infra.settings import Settings
from infra.storage.artifacts import Directory
from infra.storage.store import Store


def place(tmp_path: Path, store: str | None = None) -> tuple[Store, Settings]:
    url = store or str(tmp_path / "store")
    return Store.open(url), Settings(tmp_path / "home", url, tmp_path / "cache", prefect_api_url=None, ray_address=None)


def imported(tmp_path: Path, path: str, store: str | None = None) -> Directory | None:
    return import_source(*place(tmp_path, store), parse_config({"name": "n", "source": {"path": path}}, "test"))


def test_files_and_folders_are_kept_by_content(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").write_text("{}\n")
    folder, file = imported(tmp_path, str(tmp_path / "rows")), imported(tmp_path, str(tmp_path / "rows" / "a.jsonl"))
    assert folder is not None
    assert file is not None
    assert folder.files == file.files
    with pytest.raises(ConfigError, match="does not exist"):
        imported(tmp_path, str(tmp_path / "nothing"))


@pytest.mark.slow
def test_a_source_in_a_bucket_is_the_same_as_a_folder(
    tmp_path: Path, seaweedfs: str, s3_environment: Callable[[str], None]
) -> None:
    s3_environment(seaweedfs)
    prefix = uuid.uuid4().hex
    bucket = Store(f"s3://reneg/{prefix}")
    (tmp_path / "rows" / "qrels").mkdir(parents=True)
    for name, text in {"corpus.jsonl": "{}\n", "qrels/test.tsv": "a\tb\n"}.items():
        (tmp_path / "rows" / name).write_text(text)
        bucket.create(f"beir/{name}", text.encode())
    local = imported(tmp_path, str(tmp_path / "rows"))
    assert imported(tmp_path, f"s3://reneg/{prefix}/beir") == local
    one = imported(tmp_path, f"s3://reneg/{prefix}/beir/corpus.jsonl")
    assert one is not None
    assert list(one.files) == ["corpus.jsonl"]
    with pytest.raises(ConfigError, match="nothing at"):
        imported(tmp_path, f"s3://reneg/{prefix}/nowhere")


def test_a_curation_never_reads_what_a_curation_made(tmp_path: Path) -> None:
    made = tmp_path / "home" / "curations" / "n-000001" / "export" / "relabel"
    published = tmp_path / "store" / "published" / "n" / "000001"
    for folder in (made, published):
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text("{}\n")
        with pytest.raises(ConfigError, match="Reneg's own output"):
            imported(tmp_path, str(folder / "train.jsonl"))
    (tmp_path / "innocent").symlink_to(made)
    with pytest.raises(ConfigError, match="Reneg's own output"):
        imported(tmp_path, str(tmp_path / "innocent"))
