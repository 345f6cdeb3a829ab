"""Writes silver labels: what two versions of a training set, as it was and relabelled, say of each other.

The sets may be large. Only hashes of their texts are kept, in parts on the disk, and each part is compared alone.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from flows.config.section import ConfigError
from flows.curation.source import read_here
from infra.settings import Settings
from tasks.data.ingest import IngestConfig
from tasks.data.reading.records import Batch, IngestError
from tasks.data.reading.source import CorpusSource, RowSource, open_source
from tasks.quality.silver import MADE_BY, PAIRS, draw_silver, find_silver
from tasks.texts import hash_passage, hash_text, part_of, show_passage

_PARTS = 16
_PAIRS_AT_ONCE = 500_000  # that are in memory before they are written
_MOST_CHARS: int = IngestConfig.model_fields["max_chars"].default  # ingest cuts longer texts before it hashes them
_ROW = ["dataset", "query_id"]
Side = Literal["default", "relabelled"]


@dataclass(frozen=True)
class Written:
    """What was written.

    rows: of each set. labels: pairs of texts with a label, by label. without: negatives without one, by reason.
    passed_over: rows and passages that could not be read, by reason.
    """

    out: str
    rows: dict[str, int]
    labels: dict[str, int]
    without: dict[str, int]
    passed_over: dict[str, int]
    written: int

    def as_json(self) -> dict[str, Any]:
        """Return what a script reads."""
        return asdict(self)


def write_silver(settings: Settings, sets: dict[Side, str], out: Path, *, pairs: int = 500, seed: int = 0) -> Written:
    """Compare two versions of a training set, and write the labels of the negatives.

    A `.csv` or `.parquet` file gets all labels, by the hashes of the texts: a table for `imported.path`. A `.jsonl`
    file gets `pairs` of them with their texts, evenly from datasets and labels: a set for `gold.path`.

    Raises:
        ConfigError: a set cannot be read, the file's kind is another one, or the sets have no labelled pair in common.
    """
    if out.suffix not in (".csv", ".parquet", ".jsonl"):
        raise ConfigError(f"--out: {out}: a .csv, .parquet or .jsonl file expected")
    problems = Counter[str]()
    with read_here(settings, sets["default"]) as default, read_here(settings, sets["relabelled"]) as relabelled:
        with tempfile.TemporaryDirectory(prefix="reneg-silver-", dir=out.absolute().parent) as scratch:
            folder = Path(scratch)
            counted = {
                side: _spill(_open(source, side), folder, side, problems)
                for side, source in (("default", default), ("relabelled", relabelled))
            }
            labels, without = _compare(folder)
            if not labels:
                raise ConfigError(f"the two sets have no labelled pair in common: {dict(without) or 'no negatives'}")
            tables = pl.scan_parquet(sorted(folder.glob("labels-*.parquet")))
            if out.suffix == ".jsonl":
                drawn = draw_silver((pl.read_parquet(path) for path in sorted(folder.glob("labels-*"))), pairs, seed)
                written = _write_texts(_open(default, "default"), drawn, out)
            else:
                written = sum(labels.values())
                tables.sink_csv(out) if out.suffix == ".csv" else tables.sink_parquet(out)
    return Written(str(out), counted, labels, without, dict(sorted(problems.items())), written)


def _open(folder: Path, side: str) -> RowSource:
    try:
        source = open_source(folder)
    except IngestError as error:
        raise ConfigError(f"--{side}: {error}") from error
    if isinstance(source, CorpusSource):
        raise ConfigError(f"--{side}: rows with positive_passages and negative_passages expected, a corpus came")
    return source


def _spill(source: RowSource, folder: Path, side: str, problems: Counter[str]) -> int:
    """Write the hashed pairs of a set, cut into parts by dataset and query id; returns the number of rows."""
    held: list[pl.DataFrame] = []
    rows = pieces = 0
    for batch in source.batches():
        problems.update(problem.reason for problem in batch.problems if problem.reason != "metadata")
        held.append(hashed_pairs(batch))
        rows += batch.rows.height
        if sum(frame.height for frame in held) >= _PAIRS_AT_ONCE:
            _write_parts(pl.concat(held), folder, f"{side}-{pieces}")
            held, pieces = [], pieces + 1
    _write_parts(pl.concat([pl.DataFrame(schema=PAIRS), *held]), folder, f"{side}-{pieces}")
    return rows


def _write_parts(pairs: pl.DataFrame, folder: Path, name: str) -> None:
    rows = pairs.select(_ROW).unique(maintain_order=True)
    numbers = [part_of(hash_text("\x1f".join(row)), _PARTS) for row in rows.iter_rows()]
    placed = pairs.join(rows.with_columns(part=pl.Series(numbers, dtype=pl.Int64)), on=_ROW, maintain_order="left")
    for (part,), frame in placed.partition_by("part", as_dict=True, include_key=False).items():
        frame.write_parquet(folder / f"{part}-{name}.parquet")


def hashed_pairs(batch: Batch) -> pl.DataFrame:
    """Return the passages of a batch of rows with the columns of `PAIRS`."""
    rows = batch.rows.select("row", "query_id", "query", dataset=pl.col("dataset").fill_null(""))
    rows = rows.with_columns(query_hash=_hashes([(text,) for text in rows["query"]], "query_hash"))
    passages = batch.passages.with_columns(
        text_hash=_hashes(batch.passages.select("title", "text").rows(), "text_hash")
    )
    return passages.join(rows, on="row", maintain_order="left").select(*PAIRS)


def _hashes(texts: list[tuple[str, ...]], name: str) -> pl.Series:
    made = (hash_text if len(parts) == 1 else hash_passage for parts in texts)
    return pl.Series(
        name, [one(*(_cut(part) for part in parts)) for one, parts in zip(made, texts, strict=True)], dtype=pl.String
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else text[:_MOST_CHARS].rstrip()


def _compare(folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Find the labels of each part and write them; returns counts of labels, and of negatives without one."""
    labels, without = Counter[str](), Counter[str]()
    for part in range(_PARTS):
        sides = [
            pl.concat([pl.DataFrame(schema=PAIRS), *map(pl.read_parquet, sorted(folder.glob(f"{part}-{side}-*")))])
            for side in ("default", "relabelled")
        ]
        found = find_silver(*sides)
        labels.update(dict(found.labels.group_by("label").len().iter_rows()))
        without.update(found.without)
        found.labels.write_parquet(folder / f"labels-{part:02d}.parquet")
    return dict(sorted(labels.items())), dict(sorted(without.items()))


def _write_texts(source: RowSource, drawn: pl.DataFrame, out: Path) -> int:
    """Write the drawn pairs with their texts, as a gold set has them; sorted by texts."""
    lines = sorted(line for batch in source.batches() for line in _gold_rows(batch, drawn))
    out.write_text("".join(line for _, line in lines), encoding="utf-8")
    return len(lines)


def _gold_rows(batch: Batch, drawn: pl.DataFrame) -> Iterator[tuple[str, str]]:
    wanted = batch.rows.with_columns(pl.col("dataset").fill_null("")).join(drawn, on=_ROW)
    if wanted.is_empty():
        return
    hashes = _hashes(batch.passages.select("title", "text").rows(), "text_hash")
    passages = batch.passages.with_columns(hashes)
    positives = {
        row: [_cut(show_passage(*texts)) for texts in frame.select("title", "text").iter_rows()]
        for (row,), frame in passages.filter("positive").partition_by("row", as_dict=True).items()
    }
    asked = passages.filter(~pl.col("positive")).unique(["row", "text_hash"], keep="first", maintain_order=True)
    for pair in asked.join(wanted, on=["row", "text_hash"]).iter_rows(named=True):
        made = {
            "query": _cut(pair["query"]),
            "positives": positives.get(pair["row"], []),
            "title": _cut(pair["title"]),
            "passage": _cut(pair["text"]),
            "label": pair["label"],
            "dataset": pair["dataset"],
            "made_by": MADE_BY,
        }
        yield (
            pair["query_hash"] + pair["text_hash"],
            json.dumps({name: value for name, value in made.items() if value}, ensure_ascii=False) + "\n",
        )
