import io
import os
import stat
import tarfile
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.curation import source
from flows.curation.source import import_source, keep_sets, read_here, set_of
from flows.curation.workspace import Hooks, Workspace
from infra.settings import Settings
from infra.storage.artifacts import Directory, materialise
from infra.storage.store import Store, StoreError
from tasks.evaluation.collections import ReadConfig, read_collection
from tasks.evaluation.named_sets import TASKS
from tests.conftest import free_port
from tests.flows.curation.hub import Hub, ask_hub, serving


def place(tmp_path: Path, store: str | None = None) -> tuple[Store, Settings]:
    url = store or str(tmp_path / "store")
    return Store.open(url), Settings(tmp_path / "home", url, tmp_path / "cache", prefect_api_url=None, ray_address=None)


def imported(tmp_path: Path, path: str, store: str | None = None, **source: object) -> Directory | None:
    config = parse_config({"name": "n", "source": {"path": path, **source}}, "test")
    return import_source(*place(tmp_path, store), config)


def zipped(path: Path, *names: str | zipfile.ZipInfo, data: bytes = b"{}\n") -> str:
    """Write an archive, and return its address."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return f"zip://::{path}"


def tarred(path: Path, *members: tarfile.TarInfo) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"{}\n"[: member.size]))
    return f"tar://::{path}"


def member(name: str, kind: bytes = tarfile.REGTYPE, leads: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, leads, 3 if kind == tarfile.REGTYPE else 0
    return info


def files_outside(tmp_path: Path) -> set[str]:
    """Name all files but those of the store."""
    paths = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    return {path for path in paths if not path.startswith("store/")}


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


def test_a_file_address_of_this_machine_is_read_like_its_path(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").write_text("{}\n")
    plain = imported(tmp_path, str(tmp_path / "rows"))
    assert imported(tmp_path, f"file://{tmp_path}/rows") == imported(tmp_path, f"local://{tmp_path}/rows/") == plain
    made = tmp_path / "home" / "curations" / "n-000001"
    made.mkdir(parents=True)
    for address in (f"file://{made}", f"local://{tmp_path}/store/objects"):
        with pytest.raises(ConfigError, match="Reneg's own output"):
            imported(tmp_path, address)


@pytest.mark.parametrize(
    "name",
    ["acme/../../../x.py", "../x.py", "/etc/x", "acme//x", "acme\\x", "acme/C:x", "a\x01b", "%2e%2e/x", "x" * 256],
)  # fmt: skip
def test_a_name_in_an_archive_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    address = zipped(tmp_path / "rows.zip", "acme/a.jsonl", name)
    before = files_outside(tmp_path)
    with pytest.raises(ConfigError, match=r"zip: file name .*: a relative path expected, without"):
        imported(tmp_path, address)
    assert files_outside(tmp_path) == before
    assert not list((tmp_path / "store").rglob("objects/*"))


def test_names_in_an_archive_that_fall_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="file name 'a/b': lies below 'a'"):
        imported(tmp_path, zipped(tmp_path / "below.zip", "a", "a/b"))
    with pytest.warns(UserWarning, match="Duplicate name"):
        address = zipped(tmp_path / "twice.zip", "a.jsonl", "a.jsonl")
    with pytest.raises(ConfigError, match=r"holds 'a\.jsonl' more than once"):
        imported(tmp_path, address)


def test_what_is_no_plain_file_in_an_archive_is_refused_by_name(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(ConfigError, match=r"'link' in .* is a link or a device"):
        imported(tmp_path, zipped(tmp_path / "rows.zip", link, data=b"/etc/passwd"))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        with pytest.raises(ConfigError, match=r"'link' in .* is a link or a device"):
            imported(tmp_path, tarred(tmp_path / "rows.tar.gz", member("a"), member("link", kind, "/etc/passwd")))


def test_a_folder_in_an_archive_is_read_under_the_names_below_it(tmp_path: Path) -> None:
    zipped(tmp_path / "rows.zip", "acme/a.jsonl", "acme/qrels/test.tsv", "other/b.jsonl")
    whole, below = imported(tmp_path, f"zip://acme::{tmp_path}/rows.zip"), {"a.jsonl", "qrels/test.tsv"}
    assert whole is not None
    assert set(whole.files) == below
    one = imported(tmp_path, f"zip://acme/a.jsonl::file://{tmp_path}/rows.zip")
    assert one is not None
    assert dict(one.files) == {"a.jsonl": whole.files["a.jsonl"]}
    dotted = imported(tmp_path, tarred(tmp_path / "rows.tar.gz", member("./a.jsonl"), member("./qrels/test.tsv")))
    assert dotted == whole


def test_an_archive_that_unpacks_to_too_much_is_refused_whatever_it_says_of_its_size(tmp_path: Path) -> None:
    address = zipped(tmp_path / "rows.zip", "a.jsonl", "b.jsonl", data=b"x" * 100_000)
    said = r"has at least 200000 bytes \(unpacked, if it is an archive\), more than source\.max_bytes \(150000\)"
    with pytest.raises(ConfigError, match=said):
        imported(tmp_path, address, max_bytes=150_000)
    assert imported(tmp_path, address, max_bytes=200_000) is not None
    received = source._Received(150_000)
    received.relative_update(100_000)
    with pytest.raises(source._TooLargeError):
        received.relative_update(100_000)


def test_a_broken_or_encrypted_archive_is_an_error_of_the_source(tmp_path: Path) -> None:
    zipped(tmp_path / "rows.zip", "a.jsonl")
    data = bytearray((tmp_path / "rows.zip").read_bytes())
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    for at in (data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8):
        data[at] |= 1  # the mark of an encrypted member
    (tmp_path / "secret.zip").write_bytes(data)
    for name, error in {"cut.zip": "BadZipFile", "secret.zip": "RuntimeError: File 'a.jsonl' is encrypted"}.items():
        with pytest.raises(ConfigError, match=f"cannot be read \\({error}"):
            imported(tmp_path, f"zip://::{tmp_path / name}")


def test_nothing_of_a_source_stays_on_its_way_even_after_a_kill(tmp_path: Path) -> None:
    address = zipped(tmp_path / "rows.zip", "a.jsonl")
    scratch = tmp_path / "cache" / "files"
    scratch.mkdir(parents=True)
    for name, age in {".source-old": 100_000, ".source-new": 10}.items():
        (scratch / name).write_text("text")
        os.utime(scratch / name, (time.time() - age,) * 2)
    assert imported(tmp_path, address) is not None
    assert [path.name for path in scratch.iterdir()] == [".source-new"]


def test_a_link_out_of_a_source_folder_is_refused_and_one_within_is_followed(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.jsonl").write_text("{}\n")
    (rows / "b.jsonl").symlink_to("a.jsonl")
    kept = imported(tmp_path, str(rows))
    assert kept is not None
    assert kept.files["a.jsonl"] == kept.files["b.jsonl"]
    (tmp_path / "secret").write_text("secret")
    (rows / "c.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match=r"rows/c\.jsonl: a link to .*secret, outside of .*rows"):
        imported(tmp_path, str(rows))
    assert imported(tmp_path, str(rows / "c.jsonl")) is not None  # the user named this one
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        imported(tmp_path, "/dev/zero")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Serves the folder `web` on loopback; yields its address."""
    (tmp_path / "web").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_web_address_is_one_file_whatever_links_stand_in_it(tmp_path: Path, web: str) -> None:
    (tmp_path / "web" / "a.jsonl").write_text(f'<a href="{web}/a.jsonl/../../x.py">\n')
    one = imported(tmp_path, f"{web}/a.jsonl?sig=secret")
    assert one is not None
    assert list(one.files) == ["a.jsonl"]
    with pytest.raises(ConfigError, match="cannot be read"):
        imported(tmp_path, f"{web}/none.jsonl")
    with pytest.raises(ConfigError, match=r"source\.max_bytes"):
        imported(tmp_path, f"{web}/a.jsonl", max_bytes=5)


@pytest.mark.slow
def test_an_object_name_that_would_leave_the_folder_is_refused(
    tmp_path: Path, seaweedfs: str, s3_environment: Callable[[str], None]
) -> None:
    s3_environment(seaweedfs)
    import s3fs

    prefix = uuid.uuid4().hex
    for name in ("a.jsonl", "%2e%2e/%2e%2e/x.py"):
        s3fs.S3FileSystem().pipe_file(f"reneg/{prefix}/{name}", b"{}\n")
    with pytest.raises(ConfigError, match="a relative path expected"):
        imported(tmp_path, f"s3://reneg/{prefix}")
    with pytest.raises(ConfigError, match=r"source\.max_bytes"):
        imported(tmp_path, f"s3://reneg/{prefix}/a.jsonl", max_bytes=2)


@pytest.mark.parametrize("root", ["bucket/rows", "bucket/rows/"])
def test_objects_that_only_mark_a_folder_of_a_bucket_are_passed_over(root: str) -> None:
    class Bucket:
        def find(self, path: str, *, detail: bool) -> dict[str, dict[str, int]]:
            return {key: {"size": size} for key, size in keys.items()}

    keys = {"bucket/rows/": 0, "bucket/rows/_temporary/": 0, "bucket/rows/a.jsonl": 3, "bucket/rows/empty.jsonl": 0}
    assert [*source._list(Bucket(), root, f"s3://{root}")] == ["a.jsonl", "empty.jsonl"]
    keys = {"bucket/rows/": 0}
    with pytest.raises(ConfigError, match="nothing at"):
        source._list(Bucket(), root, f"s3://{root}")
    keys = {"bucket/rows/b/": 3}
    with pytest.raises(ConfigError, match="a relative path expected"):
        source._list(Bucket(), root, f"s3://{root}")


def names(found: Directory | None) -> list[str]:
    assert found is not None
    return sorted(found.files)


def rows_in(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n")


def test_a_pattern_gives_the_files_that_match_and_those_below_matching_folders(tmp_path: Path) -> None:
    rows_in(tmp_path / "rows", "a.jsonl", "b.jsonl", "c.txt", "2024-1/train.jsonl", "2024-2/more/train.jsonl")
    rows = tmp_path / "rows"
    assert names(imported(tmp_path, f"{rows}/*.jsonl")) == ["a.jsonl", "b.jsonl"]
    assert names(imported(tmp_path, f"file://{rows}/[ac].*")) == ["a.jsonl", "c.txt"]
    assert names(imported(tmp_path, f"{rows}/2024-*")) == ["2024-1/train.jsonl", "2024-2/more/train.jsonl"]
    assert names(imported(tmp_path, f"{rows}/**/train.jsonl")) == ["2024-1/train.jsonl", "2024-2/more/train.jsonl"]
    rows_in(rows, "[x].jsonl", "x.jsonl")
    assert names(imported(tmp_path, f"{rows}/[x].jsonl")) == ["[x].jsonl"]  # a file of this name goes first
    with pytest.raises(ConfigError, match=r"no file matches .*/rows/\*\.parquet; give a file, a folder or a pattern"):
        imported(tmp_path, f"{rows}/*.parquet")


def test_a_pattern_reaches_no_result_of_reneg_and_leads_out_of_no_folder(tmp_path: Path) -> None:
    rows_in(tmp_path / "home" / "curations" / "n-000001", "train.jsonl")
    for pattern in ("home/curations/*/train.jsonl", "h*/c*/*/train.jsonl", "home/*"):
        with pytest.raises(ConfigError, match="Reneg's own"):
            imported(tmp_path, f"{tmp_path}/{pattern}")
    rows_in(tmp_path, "rows/a.jsonl", "other/b.jsonl")
    (tmp_path / "rows" / "link").symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"leads out of .*/rows by a link"):
        imported(tmp_path, f"{tmp_path}/rows/*/b.jsonl")
    with pytest.raises(ConfigError, match=r"rows/link leads out of .*/rows by a link"):
        imported(tmp_path, f"{tmp_path}/rows/*")


@pytest.mark.slow
def test_a_pattern_in_a_bucket_gives_the_files_that_match(
    tmp_path: Path, seaweedfs: str, s3_environment: Callable[[str], None]
) -> None:
    s3_environment(seaweedfs)
    prefix = uuid.uuid4().hex
    bucket = Store(f"s3://reneg/{prefix}")
    for name in ("a.jsonl", "b.txt", "2024-1/c.jsonl"):
        bucket.create(f"rows/{name}", b"{}\n")
    assert names(imported(tmp_path, f"s3://reneg/{prefix}/rows/*.jsonl")) == ["a.jsonl"]
    assert names(imported(tmp_path, f"s3://reneg/{prefix}/rows/2024-*")) == ["2024-1/c.jsonl"]
    with pytest.raises(ConfigError, match="nothing at"):
        imported(tmp_path, f"s3://reneg/{prefix}/rows/*.parquet")
    with pytest.raises(ConfigError, match="Reneg's own output"):
        imported(tmp_path, f"s3://reneg/{prefix[:-1]}*/rows/a.jsonl", store=f"s3://reneg/{prefix}")


def test_a_pattern_within_an_archive_gives_the_members_that_match(tmp_path: Path) -> None:
    zipped(tmp_path / "rows.zip", "acme/a.jsonl", "acme/b.txt", "other/c.jsonl")
    assert names(imported(tmp_path, f"zip://acme/*.jsonl::{tmp_path}/rows.zip")) == ["a.jsonl"]


def test_a_file_that_is_no_data_is_refused_at_once_with_what_to_do(tmp_path: Path) -> None:
    address = zipped(tmp_path / "rows.zip", "a.jsonl")
    with pytest.raises(ConfigError, match=r"rows\.zip is a zip archive; .*; give zip://::/.*/rows\.zip to read what"):
        imported(tmp_path, str(tmp_path / "rows.zip"))
    assert names(imported(tmp_path, address)) == ["a.jsonl"]
    (tmp_path / "rows.jsonl").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ConfigError, match=r"rows\.jsonl is a Git LFS pointer, not the file; run `git lfs pull`"):
        imported(tmp_path, str(tmp_path / "rows.jsonl"))


def test_the_cache_of_a_hub_is_read_by_file_snapshot_or_data_set(tmp_path: Path) -> None:
    cache = tmp_path / "datasets--owner--name"
    for commit in ("old", "new"):
        rows_in(cache, f"blobs/{commit}")
        (cache / "snapshots" / commit / "data").mkdir(parents=True)
        (cache / "snapshots" / commit / "data" / "a.jsonl").symlink_to(cache / "blobs" / commit)
    with pytest.raises(ConfigError, match=r"holds 2 snapshots; give one: .*/snapshots/<commit>"):
        imported(tmp_path, str(cache))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("new")
    assert names(imported(tmp_path, str(cache))) == ["data/a.jsonl"]
    assert names(imported(tmp_path, str(cache / "snapshots" / "old"))) == ["data/a.jsonl"]
    assert names(imported(tmp_path, str(cache / "snapshots" / "old" / "data" / "a.jsonl"))) == ["a.jsonl"]
    assert names(imported(tmp_path, f"{cache}/snapshots/*/data/a.jsonl")) == [
        "new/data/a.jsonl",
        "old/data/a.jsonl",
    ]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serves a data set on loopback, where the library of the hub finds it."""
    with serving({"README.md": b"# Rows\n", "data/train.jsonl": b"{}\n", "data/test.jsonl": b"[]\n"}) as hub:
        ask_hub(monkeypatch, hub.address)
        yield hub


def test_a_data_set_of_a_hub_is_read_at_one_commit(tmp_path: Path, hub: Hub) -> None:
    whole = imported(tmp_path, "hf://datasets/owner/name")
    assert names(whole) == ["README.md", "data/test.jsonl", "data/train.jsonl"]
    fetched = [path for path in hub.asked if "/resolve/" in path]
    assert len(fetched) == 3
    assert all(f"/resolve/{'a' * 40}/" in path for path in fetched)
    assert imported(tmp_path, "hf://owner/name") == whole  # a data set, also without saying so
    assert imported(tmp_path, "hf://datasets/owner/name@v1") == whole
    assert names(imported(tmp_path, "hf://owner/name@v1/data")) == ["test.jsonl", "train.jsonl"]
    assert names(imported(tmp_path, "hf://owner/name/data/*train*")) == ["train.jsonl"]
    assert names(imported(tmp_path, "hf://owner/name/data/train.jsonl")) == ["train.jsonl"]


def test_the_commit_of_a_data_set_is_told(hub: Hub) -> None:
    def pinned(path: str) -> str | None:
        return source.pinned_source(parse_config({"name": "n", "source": {"path": path}}, "test"))

    assert pinned("hf://owner/name") == f"hf://datasets/owner/name@{'a' * 40}"
    assert pinned("hf://datasets/owner/name@v1/data") == f"hf://datasets/owner/name@{'b' * 40}/data"
    assert pinned("rows/*.jsonl") == "rows/*.jsonl"


@pytest.mark.parametrize("address", ["hf://owner/none", "hf://owner/name@none", "hf://owner"])
def test_a_data_set_that_is_not_there_says_what_to_do(tmp_path: Path, hub: Hub, address: str) -> None:
    with pytest.raises(ConfigError, match=r"hf://owner.* cannot be read \(\w+: .*What to do: check the name"):
        imported(tmp_path, address)


def test_a_hub_that_cannot_be_reached_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_hub(monkeypatch, "http://127.0.0.1:9")
    said = r"run `hf download owner/name --repo-type dataset --local-dir rows` on a machine that reaches it"
    with pytest.raises(ConfigError, match=said):
        imported(tmp_path, "hf://owner/name@v1/data")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=said):
        imported(tmp_path, "hf://datasets/owner/name")


def test_a_source_is_looked_at_where_it_lies_and_fetched_into_the_store_otherwise(tmp_path: Path) -> None:
    rows = tmp_path / "data" / "rows.jsonl"
    rows.parent.mkdir()
    rows.write_text("{}\n")
    settings = Settings(tmp_path / "home", str(tmp_path / "store"), tmp_path / "cache", None, None)
    with read_here(settings, str(rows.parent)) as folder:
        assert folder == rows.parent
    with read_here(settings, str(rows)) as folder:
        assert [path.name for path in folder.iterdir()] == ["rows.jsonl"]
        assert (folder / "rows.jsonl").read_text() == "{}\n"
    assert not (tmp_path / "store").exists()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inside.jsonl", "{}\n")
    with read_here(settings, f"zip://::{tmp_path / 'a.zip'}") as folder:
        assert [path.name for path in folder.iterdir()] == ["inside.jsonl"]
    with pytest.raises(ConfigError, match="does not exist"), read_here(settings, str(tmp_path / "none")):
        pass


@pytest.mark.parametrize("setting", ["guards.evaluation", "evaluate.collections"])
def test_sets_are_copied_each_below_its_number_and_the_copy_serves_where_one_is_out_of_reach(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    said: list[str] = []
    store, settings = place(tmp_path)
    workspace = Workspace(settings, store, hooks=Hooks(on_message=said.append))
    folder, lines = tmp_path / "nfcorpus", tmp_path / "mine.txt"
    folder.mkdir()
    for path in (folder / "queries.jsonl", lines):
        path.write_text('{"_id": "q", "text": "where"}\n')

    def kept_of(known: dict[str, str], *addresses: str) -> dict[str, str]:
        section, _, field = setting.partition(".")
        config = parse_config({"name": "n", "source": {"path": "x"}, section: {field: list(addresses)}}, "test")
        return keep_sets(workspace, config, setting, known)

    kept = kept_of({}, str(folder), str(lines))
    assert sorted(kept) == ["0/queries.jsonl", "1/mine.txt"]
    assert list(set_of(kept, 1).files) == ["mine.txt"]
    far = ("s3://nowhere/set", str(lines))
    assert kept_of(kept, *far) == kept
    assert said[0].startswith(f"{setting}: s3://nowhere/set cannot be read")
    with pytest.raises(ConfigError, match=rf"^{setting}: s3://nowhere/set cannot be read"):
        kept_of({}, *far)
    with pytest.raises(ConfigError, match=rf"^{setting}: .* does not exist"):
        kept_of(kept, "nowhere")


@pytest.mark.parametrize("named", [{"mteb": "SciFact"}, {"beir": "scifact"}], ids=["mteb", "beir"])
def test_a_set_that_is_named_is_fetched_at_its_revision_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: dict[str, str]
) -> None:
    store, settings = place(tmp_path)
    task, row = TASKS["SciFact"], b'{"_id": "%s", "title": "", "text": "%s"}\n'
    files = {
        "README.md": b"---\nconfigs: []\n---\n",
        "corpus.jsonl": row % (b"d1", b"cells divide") + row % (b"d2", b"mice sleep"),
        "queries.jsonl": row % (b"q1", b"do cells divide") + row % (b"q2", b"do mice fly"),
        "qrels/test.jsonl": b'{"query-id": "q1", "corpus-id": "d1", "score": 1}\n',
        "qrels/train.jsonl": b'{"query-id": "q2", "corpus-id": "d2", "score": 1}\n',
    }
    config = parse_config({"name": "n", "source": {"path": "x"}, "evaluate": {"collections": [named]}}, "test")
    with serving(files, task.source, task.revision) as hub:
        ask_hub(monkeypatch, hub.address)
        kept = keep_sets(Workspace(settings, store, hooks=Hooks()), config, "evaluate.collections", {})
        assert all(f"/{task.revision}" in path for path in hub.asked)
    folder = materialise(store, set_of(kept, 0), settings.scratch)
    made = read_collection(ReadConfig(name="SciFact", split=task.split), source=folder)
    assert [frame["query_id"].to_list() for frame in made["queries"]] == [["q1"]]
    assert [frame.select("doc_id", "relevance").rows() for frame in made["qrels"]] == [[("d1", 1)]]
    assert [frame["doc_id"].to_list() for frame in made["passages"]] == [["d1", "d2"]]
