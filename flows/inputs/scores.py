"""Copies a file with a judge's verdicts into the store, checked: the engine of a tier with `kind: scores`."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import polars as pl
from polars.exceptions import PolarsError

from flows.config.section import ConfigError
from flows.inputs.addresses import is_unreadable, open_address
from infra.engines.specs import ScoresSpec
from infra.storage.large_files import put_file
from infra.storage.store import Store
from tasks.quality.scores import COLUMNS, FILE, settle_scores

_PACKED = (".gz", ".zst")
_RUNS = (".run", ".trec", ".txt")
_ENDINGS = (".tsv", ".csv", ".jsonl", ".ndjson", ".parquet", *_RUNS)
_RUN_LINE = r"^\s*(?<query_id>\S+)\s+\S+\s+(?<doc_id>\S+)\s+\S+\s+(?<value>\S+)"  # query Q0 document rank score tag
_ASIDE = {  # what becomes of the rows that are counted
    "repeated": "{} row(s) say the same as another row of their pair; one of them is kept ({})",
    "several_scores": "{} row(s) left out: their pair has several scores ({}); the pair counts as missing",
    "no_id": "{} row(s) left out: no id of query or document ({})",
    "no_score": "{} row(s) left out: the score is empty ({})",
    "not_a_number": "{} row(s) left out: the score is no number ({})",
    "out_of_range": "{} row(s) left out: the score is outside the scale ({})",
}


def keep_scores(
    store: Store,
    spec: ScoresSpec,
    about: tuple[str, str],
    known: Mapping[str, str] | None,
    tell: Callable[[str], None] = lambda text: None,
) -> Mapping[str, str]:
    """Store the verdicts of a file, one row per pair; returns the files in the store. `tell` reports rows left out.

    Args:
        store: where they are kept.
        spec: the file, its columns and its scale.
        about: the tier's name, and the dataset of rows that name none.
        known: the copy of the last execution, which is used if the file cannot be read now.
        tell: takes one line per reason.

    Raises:
        ConfigError: it cannot be read, lacks columns, or holds no usable row.
    """
    tier, dataset = about
    where = f"tier {tier}: {spec.path}"
    ending = _ending_of(spec.path)
    with tempfile.TemporaryDirectory(prefix="reneg-scores-") as folder:
        local, made = Path(folder) / f"given{ending}", Path(folder) / FILE
        try:
            fs, root = open_address(spec.path, "engine.path")
            fs.get_file(root, str(local))
        except Exception as error:
            if not is_unreadable(error):
                raise
            if known is not None:
                tell(f"{where} cannot be read here; the copy of the last execution is used")
                return known
            raise ConfigError(f"{where} cannot be read ({type(error).__name__}: {error})") from error
        try:
            rows = _columns(_scan(local, ending), spec, dataset)
            table, left_out = settle_scores(rows, spec.scale, spec.max_grade)
        except (PolarsError, UnicodeDecodeError, OSError) as error:
            first = str(error).partition("\n")[0]
            raise ConfigError(f"{where} cannot be read as {ending.removeprefix('.')} ({first})") from error
        for reason, (count, example) in left_out.items():
            tell(f"{where}: {_ASIDE[reason].format(f'{count:,}', example)}")
        if table.is_empty():
            raise ConfigError(
                f"{where} holds no usable row; scale {spec.scale!r} expects "
                + {"probability": "numbers from 0 to 1", "logit": "numbers"}.get(spec.scale, f"0 to {spec.max_grade}")
            )
        table.write_parquet(made)
        return {FILE: put_file(store, made)}


def _ending_of(path: str) -> str:
    """Return the ending that says the kind of a file, with the one of its packing.

    >>> _ending_of("s3://runs/gpt4o.tsv.gz"), _ending_of("https://host/a.run?x=1")
    ('.tsv.gz', '.run')
    """
    name = PurePosixPath(urlsplit(path).path if path.startswith("http") else path)
    packed = name.suffix.lower() if name.suffix.lower() in _PACKED else ""
    kind = (PurePosixPath(name.stem) if packed else name).suffix.lower()
    if kind not in _ENDINGS or (packed and kind == ".parquet"):
        raise ConfigError(
            f"engine.path: {path}: a file with one of the endings {', '.join(_ENDINGS)} expected (.run, .trec and .txt "
            f"are TREC runs); text may be packed ({', '.join(_PACKED)})"
        )
    return kind + packed


def _scan(path: Path, ending: str) -> pl.LazyFrame:
    """Read a file of any of the kinds, text as strings."""
    kind = ending.partition(".")[2].partition(".")[0]
    if kind == "parquet":
        return pl.scan_parquet(path)
    if kind in ("jsonl", "ndjson"):
        return pl.scan_ndjson(path, infer_schema_length=None)
    if kind == "csv":
        return pl.scan_csv(path, infer_schema=False)
    if kind == "tsv":
        return pl.scan_csv(path, separator="\t", infer_schema=False, quote_char=None)
    lines = pl.scan_csv(
        path, separator="\x01", has_header=False, quote_char=None, infer_schema=False, new_columns=["line"]
    )
    return lines.select(pl.col("line").str.extract_groups(_RUN_LINE)).unnest("line")


def _columns(rows: pl.LazyFrame, spec: ScoresSpec, dataset: str) -> pl.LazyFrame:
    """Return the rows with the columns of `COLUMNS`."""
    names, wanted = rows.collect_schema().names(), spec.columns
    if names == ["query_id", "doc_id", "value"]:  # a TREC run
        return rows.with_columns(dataset=pl.lit(dataset)).select(*COLUMNS)
    needed = [wanted.query_id, wanted.doc_id, wanted.score, *([wanted.dataset] if wanted.dataset else [])]
    absent = [name for name in needed if name not in names]
    if absent:
        raise ConfigError(
            f"engine.columns: {spec.path} has the columns {', '.join(names)}; {', '.join(absent)} expected. Name those "
            "of the file, such as columns: {query_id: qid, doc_id: pid, score: p}"
        )
    named = wanted.dataset or ("dataset" if "dataset" in names else None)
    return rows.select(
        (pl.lit(dataset) if named is None else pl.col(named).cast(pl.String)).alias("dataset"),
        pl.col(wanted.query_id).cast(pl.String).alias("query_id"),
        pl.col(wanted.doc_id).cast(pl.String).alias("doc_id"),
        pl.col(wanted.score).alias("value"),
    )
