"""Each file of a folder is read, or a problem names it."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.data.reading.files import SourceFile, list_files, not_read, of_split, source_file, split_of
from tests.tasks.data.containers.written import PACKINGS, TABLES, TEXTS

ROWS = [{"query": "q", "pos": ["a"]}]
DESCRIPTION = json.dumps({"features": {"query": {"dtype": "string"}}, "splits": {}})


def write(folder: Path, **files: bytes | str) -> None:
    for name, data in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)


def put(folder: Path, name: str, data: bytes | str = "{}\n") -> None:
    write(folder, **{name: data})


def test_all_files_below_a_folder_are_listed_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["a.jsonl", "b/a.ndjson", "b/c/part-00000", "b.json", "train.jsonl.gzip"]
    for name in reversed(names):
        put(tmp_path, name, TEXTS["lines"](ROWS))
    files, problems = list_files(tmp_path)
    assert [file.name for file in files] == ["a.jsonl", "b/a.ndjson", "b/c/part-00000", "b.json", "train.jsonl.gzip"]
    assert files[1].path == tmp_path / "b" / "a.ndjson"
    assert problems == []


def test_descriptions_and_marks_of_other_tools_are_no_loss(tmp_path: Path) -> None:
    for name in ("README.md", "LICENSE", "_SUCCESS", ".part-0.crc", "x.sha256", "_temporary/0/part-0", ".cache/a.json"):
        put(tmp_path, name)
    for name in ("dataset_info.json", "state.json", "dataset_dict.json"):
        put(tmp_path, name, DESCRIPTION)
    put(tmp_path, "part-0.json")
    files, problems = list_files(tmp_path)
    assert [file.name for file in files] == ["part-0.json"]
    assert {problem.reason for problem in problems} == {"metadata"}
    assert len(problems) == 10
    assert all(problem.detail for problem in problems)


def test_rows_under_the_name_of_a_description_are_read(tmp_path: Path) -> None:
    put(tmp_path, "state.json", TEXTS["lines"](ROWS))
    files, problems = list_files(tmp_path)
    assert [file.name for file in files] == ["state.json"]
    assert problems == []


def test_what_is_not_read_is_named_with_what_to_do(tmp_path: Path) -> None:
    put(tmp_path, "rows.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:ab\n")
    put(tmp_path, "notes.txt", "Some prose.\n")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "round").symlink_to(tmp_path)
    files, problems = list_files(tmp_path)
    assert files == []
    assert [(problem.key, problem.reason) for problem in problems] == [
        ("gone.jsonl", "not_read"),
        ("notes.txt", "not_read"),
        ("round", "not_read"),
        ("rows.parquet", "not_read"),
    ]
    assert problems[3].detail == "this is a Git LFS pointer, not the file; run `git lfs pull`"


def test_shards_that_are_not_there_are_named(tmp_path: Path) -> None:
    for number in (0, 2):
        put(tmp_path, f"data/train-{number:05}-of-00004.parquet", TABLES["parquet"](ROWS))
    put(tmp_path, "data/test-00000-of-00001.parquet", TABLES["parquet"](ROWS))
    files, problems = list_files(tmp_path)
    assert len(files) == 3
    assert [(problem.key, problem.reason) for problem in problems] == [
        ("data/train-00001-of-00004.parquet", "missing_file"),
        ("data/train-00003-of-00004.parquet", "missing_file"),
    ]


def test_a_folder_that_the_library_datasets_saved_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.DatasetDict({name: datasets.Dataset.from_list(ROWS) for name in ("train", "test")})
    saved.save_to_disk(tmp_path / "saved")
    files, problems = list_files(tmp_path / "saved")
    assert [(file.name, file.kind) for file in files] == [
        ("test/data-00000-of-00001.arrow", "arrow"),
        ("train/data-00000-of-00001.arrow", "arrow"),
    ]
    assert {problem.reason for problem in problems} == {"metadata"}
    assert [file.name for file in of_split(files, "train")[0]] == ["train/data-00000-of-00001.arrow"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00003.parquet", "train"),
        ("nq/dev.jsonl", "validation"),
        ("val/0.jsonl", "validation"),
        ("test/train-0.jsonl", "train"),
        ("contest.jsonl", None),
        ("trains.jsonl", None),
        ("my_test_rows.json", "test"),
        ("rows.jsonl", None),
    ],
)
def test_the_split_of_a_file_is_told_by_its_name_or_folder(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_files_of_other_splits_are_named_where_the_wanted_split_is_there() -> None:
    files = [SourceFile(Path(name), name, "lines") for name in ("train.jsonl", "dev.jsonl", "more.jsonl")]
    kept, others = of_split(files, "train")
    assert [file.name for file in kept] == ["train.jsonl", "more.jsonl"]
    [problem] = others
    assert (problem.key, problem.reason) == ("dev.jsonl", "other_split")
    assert problem.detail == "its name says split validation; only train is read"
    assert of_split(files[1:], "train") == (files[1:], [])


def test_a_file_that_nobody_uses_can_be_named(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl")
    problem = not_read(source_file(tmp_path / "a.jsonl"), "why")
    assert (problem.key, problem.reason, problem.detail) == ("a.jsonl", "not_read", "why")


NAMES = st.sampled_from(["a.jsonl", "b/c.txt", "README.md", "_SUCCESS", "d.parquet", "e/.hidden", "state.json"])
DATA = st.one_of(
    st.binary(max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40).map(str.encode),
    st.sampled_from([write(ROWS) for write in (TABLES | TEXTS).values()]),
    st.sampled_from([pack(TEXTS["lines"](ROWS)) for pack in PACKINGS.values()]),
)


@given(files=st.dictionaries(NAMES, DATA, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_vanishes(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("source")
    for name, data in files.items():
        put(folder, name, data)
    listed, problems = list_files(folder)
    assert sorted([file.name for file in listed] + [problem.key for problem in problems]) == sorted(files)
