"""Which addresses are read, and which lead to Reneg's own results however they are written."""

from pathlib import Path

import pytest

from flows.config.section import ConfigError
from flows.inputs.addresses import (
    is_unreadable,
    is_web_page,
    local_path,
    open_address,
    refuse_own_output,
    refuse_system_file,
)
from infra.settings import Settings


def settings(tmp_path: Path, store: str) -> Settings:
    return Settings(tmp_path / "home", store, tmp_path / "cache", prefect_api_url=None, ray_address=None)


@pytest.mark.parametrize(
    "address",
    ["github://owner:repo@main/rows.jsonl", "ftp://host/rows.jsonl", "sftp://host/rows.jsonl", "memory://rows.jsonl",
     "reference://::file:///r.json", "simplecache::s3://bucket/rows.jsonl", "dask://x", "data://x", "git://x",
     "zip://a::simplecache::s3://bucket/x.zip", "zip://a::memory://x.zip", "libarchive://a::s3://bucket/x.7z",
     "dir::file:///x", "s3://bucket/x::file:///y", "zip://x", "file:///x::file:///y"],
)  # fmt: skip
def test_other_kinds_of_address_are_refused_with_those_that_are_read(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^source\.path: \w+:// is not read; a path, s3://, gs://, az://, hf://"):
        open_address(address, "source.path")


@pytest.mark.parametrize(
    ("address", "kind", "root"),
    [
        ("s3://bucket/rows", "s3", "bucket/rows"),
        ("s3a://bucket/rows", "s3", "bucket/rows"),
        ("https://host/rows.jsonl?sig=x", "https", "https://host/rows.jsonl?sig=x"),
        ("rows.jsonl", "file", str(Path("rows.jsonl").absolute())),
        ("data:,x", "file", str(Path("data:,x").absolute())),
    ],
)
def test_an_address_that_is_read_is_opened(address: str, kind: str, root: str) -> None:
    fs, found = open_address(address, "source.path")
    assert kind in fs.protocol
    assert found == root


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("rows", Path("rows")),
        ("/data/a::b", Path("/data/a::b")),
        ("file:///data/rows", Path("/data/rows")),
        ("local:///data//rows/", Path("/data/rows")),
        ("file://rows", Path("rows").absolute()),
        ("zip://::/data/rows.zip", None),
        ("s3://bucket/rows", None),
    ],
)
def test_an_address_of_this_machine_is_a_path(address: str, path: Path | None) -> None:
    assert local_path(address) == path


def test_files_of_the_running_system_are_no_data_however_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self")
    for path in ("/proc/self/environ", "/sys/kernel", "/tmp/../proc/1/environ", str(tmp_path / "link" / "environ")):
        with pytest.raises(ConfigError, match=r"source\.path: .* is a file of the running system"):
            refuse_system_file(Path(path), "source.path")
        with pytest.raises(ConfigError, match=r"gold\.path: .* is a file of the running system"):
            open_address(f"file://{path}", "gold.path")
    refuse_system_file(tmp_path, "source.path")


def test_only_a_plain_web_address_is_one_file() -> None:
    addresses = ("http://h/a.jsonl", "https://h/a.jsonl?x=1", "zip://::https://h/a.zip", "s3://b/a", "a")
    assert [is_web_page(address) for address in addresses] == [True, True, False, False, False]


@pytest.mark.parametrize(
    "address",
    ["{store}/published/n/000001", "file://{store}/published/n", "local://{store}/objects", "file://{store}//objects/x",
     "{store}/../store/objects", "zip://a::{store}/objects/ab/x.zip", "zip://a::file://{store}/objects/x.zip",
     "tar::file://{store}/x.tar", "{link}/objects", "file://{link}", "{home}/curations/n-000001/export",
     "file://{home}/curations/n-000001", "zip://::{home}/curations/x.zip"],
)  # fmt: skip
def test_results_on_this_machine_are_known_by_every_spelling(tmp_path: Path, address: str) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "link").symlink_to(store)
    named = address.format(store=store, link=tmp_path / "link", home=tmp_path / "home")
    for own in (str(store), f"file://{store}", str(tmp_path / "link")):
        with pytest.raises(ConfigError, match="Reneg's own output"):
            refuse_own_output(named, settings(tmp_path, own))


@pytest.mark.parametrize(
    "address",
    ["s3://bucket/team/reneg/published/n", "s3a://bucket/team/reneg/objects", "s3://bucket//team/reneg/x",
     "s3://bucket/./team/reneg/x", "s3://bucket/team/x/../reneg/x", "s3://bucket/team/reneg/", "s3://bucket/team/reneg",
     "s3://bucket/team/%72eneg/x", "s3://bucket/team%2Freneg/x", "zip://a::s3://bucket/team/reneg/objects/x.zip",
     "http://127.0.0.1:8333/bucket/team/reneg/published/n/000001/train.jsonl",
     "https://bucket.s3.amazonaws.com/team/reneg/objects/ab/abc?X-Amz-Signature=x",
     "tar::https://host//bucket/team/reneg/objects/ab/abc"],
)  # fmt: skip
def test_results_in_a_bucket_are_known_by_every_spelling(tmp_path: Path, address: str) -> None:
    for own in ("s3://bucket/team/reneg", "s3a://bucket/team/reneg/", "s3://bucket//team/./reneg"):
        with pytest.raises(ConfigError, match="Reneg's own output"):
            refuse_own_output(address, settings(tmp_path, own if "http" not in address else "s3://bucket/team/reneg"))


@pytest.mark.parametrize("store", ["s3://bucket/team/reneg", "here"])
def test_a_folder_around_the_results_is_refused_too(tmp_path: Path, store: str) -> None:
    around = tmp_path if store == "here" else "s3://bucket/team"
    store = str(tmp_path / "store") if store == "here" else store
    with pytest.raises(ConfigError, match="holds Reneg's own results"):
        refuse_own_output(str(around), settings(tmp_path, store))


@pytest.mark.parametrize(
    "address",
    ["s3://bucket/team/reneg2/rows", "s3://bucket/team/rows", "s3://other/team/reneg/objects", "gs://bucket/team/reneg",
     "https://host/team/reneg/published/n", "https://host/bucket/team/rows.jsonl", "/bucket/team/reneg/rows", "rows"],
)  # fmt: skip
def test_other_data_is_read(tmp_path: Path, address: str) -> None:
    refuse_own_output(address, settings(tmp_path, "s3://bucket/team/reneg"))


def test_what_archives_raise_is_no_defect_of_ours() -> None:
    assert is_unreadable(RuntimeError("File is encrypted, password required for extraction"))
    assert is_unreadable(FileNotFoundError())
    assert not is_unreadable(TypeError())
