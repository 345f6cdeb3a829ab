"""List the files of a source: those that are read, and a problem for each that is not."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tasks.data.containers.kinds import Kind, NotReadableError, SourceFile, source_file
from tasks.lines import Problem

__all__ = ["Kind", "SourceFile", "list_files", "not_read", "of_split", "source_file", "split_of"]
_DESCRIPTIONS = re.compile(r"(readme|licen[cs]e|copying|notice|citation|changelog|authors)([._-].*)?", re.IGNORECASE)
_MARKERS = re.compile(
    r"_.*|\..*|.*\.(crc|lock|sha256|md5)", re.IGNORECASE
)  # Spark's _SUCCESS, .part-0.crc, .gitattributes
# Descriptions that the library `datasets` writes beside the rows, and a key that each of them has.
_OF_DATASETS = re.compile(r'"(_data_files|_fingerprint|features|splits|download_checksums|default_config_name)"\s*:')
_CACHED = re.compile(r"(cache-[0-9a-f]{16}.*|tmp[a-z0-9_]{8})(\.arrow)?")
_NAMES_OF_DATASETS = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json")
_SHARD = re.compile(r"(?P<before>.*?)(?P<number>\d{5})-of-(?P<total>\d{5})(?P<after>.*)")
_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_SPLITS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")


def list_files(folder: Path) -> tuple[list[SourceFile], list[Problem]]:
    """List the files below a folder in the order of their names, and what is passed over.

    The problems have the reason `not_read` (data that nobody reads; the detail says what it is and what to do),
    `metadata` (harmless: descriptions and marks of other tools) or `missing_file` (a shard that the names of the others
    promise).
    """
    files: list[SourceFile] = []
    problems: list[Problem] = []
    for path, name in _below(folder):
        if not path.is_file():
            problems.append(Problem(name, "not_read", "this is a link to a folder or to nothing; put the files there"))
            continue
        why = _metadata(path, name)
        if why is not None:
            problems.append(Problem(name, "metadata", why))
            continue
        try:
            files.append(source_file(path, name))
        except NotReadableError as error:
            problems.append(Problem(name, "not_read", f"this is {error}"))
    return files, [*problems, *_missing_shards(files)]


def not_read(file: SourceFile, why: str) -> Problem:
    """Report a file that can be read but is passed over."""
    return Problem(file.name, "not_read", why)


def split_of(name: str) -> str | None:
    """Tell the split that a file's name or folder says it holds, as the Hugging Face hub does.

    >>> split_of("data/train-00000-of-00003.parquet"), split_of("nq/validation/0.jsonl"), split_of("rows.jsonl")
    ('train', 'validation', None)
    """
    for part in reversed(name.lower().split("/")):
        words = re.split(r"[^a-z]+", part)
        found = [_SPLITS[word] for word in words if word in _SPLITS]
        if found:
            return found[0]
    return None


def of_split(files: Sequence[SourceFile], split: str) -> tuple[list[SourceFile], list[Problem]]:
    """Keep the files of a split, and those whose names say no split. Without any file of the split, keep all.

    A folder of the hub holds `train`, `validation` and `test` side by side. Who trains on all would train on the
    questions that the model is tested with.
    """
    splits = [split_of(file.name) for file in files]
    if split not in splits:
        return list(files), []
    kept = [file for file, found in zip(files, splits, strict=True) if found in (split, None)]
    others = [(file, found) for file, found in zip(files, splits, strict=True) if found not in (split, None)]
    said = "its name says split {}; only {} is read"
    return kept, [Problem(file.name, "other_split", said.format(found, split)) for file, found in others]


def _below(folder: Path) -> list[tuple[Path, str]]:
    """List path and name of all files below a folder, in the order of the names."""
    found = []
    for above, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(above) / name).is_symlink()]  # they may lead round in a circle
        found += [Path(above) / name for name in (*names, *links)]
    named = [(path, path.relative_to(folder).as_posix()) for path in found]
    return sorted(named, key=lambda item: item[1].split("/"))


def _metadata(path: Path, name: str) -> str | None:
    """Tell why a file is no data; None if it may be data."""
    parts = name.split("/")
    if any(part.startswith((".", "_")) for part in parts[:-1]):
        return "in a folder of another tool; its name begins with a dot or an underscore"
    if _MARKERS.fullmatch(parts[-1]):
        return "a mark or checksum of another tool"
    if _CACHED.fullmatch(parts[-1]):
        return "a result that the library datasets cached"
    if _DESCRIPTIONS.fullmatch(parts[-1]):
        return "a description for people"
    if parts[-1] in _NAMES_OF_DATASETS:
        with path.open(encoding="utf-8", errors="replace") as file:
            if _OF_DATASETS.search(file.read(2**20)):
                return "a description that the library datasets wrote"
    return None


def _missing_shards(files: Sequence[SourceFile]) -> list[Problem]:
    """Report the shards that are not there though `train-00000-of-00003.parquet` promises them."""
    there: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for file in files:
        if match := _SHARD.fullmatch(file.name):
            there[match["before"], match["after"], match["total"]].add(int(match["number"]))
    problems = []
    for (before, after, total), numbers in there.items():
        missing = [number for number in range(min(int(total), 10_000)) if number not in numbers]
        names = [f"{before}{number:05d}-of-{total}{after}" for number in missing]
        problems += [Problem(name, "missing_file", f"one of {int(total)} shards is not there") for name in names]
    return problems
