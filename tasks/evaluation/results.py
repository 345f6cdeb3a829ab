"""Files of an evaluation that other tools read: results as mteb keeps them, runs as TREC does, scores of each query.

`results/MODEL/REVISION/COLLECTION.json` is a task result of mteb, version 2. `runs/MODEL/COLLECTION.SPLIT.trec.gz` is a
run for trec_eval. `queries/MODEL/COLLECTION.SPLIT.tsv` has a line for each query and a column for each measure.
"""

import gzip
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.data.writing.files import file_names
from tasks.evaluation.measures import USUAL
from tasks.mining.dense.corpus import Frames, frames_of

FORMAT = "2.0.0"  # of mteb's task results
_MTEB = {"nDCG": "ndcg", "R": "recall", "RR": "mrr", "P": "precision", "AP": "map", "Success": "hit_rate"}


class ResultsConfig(BaseModel):
    """Of what the results are.

    model: its name. revision: a digest of it. split: of the judgements. languages: by dataset, for mteb's tools.
    main: the measure that mteb calls the main score; where it was not taken, the first one is.
    data: the revision of the data set, if a hub has it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    revision: str
    split: str = "test"
    languages: dict[str, tuple[str, ...]] = {}
    main: str = USUAL[0]
    data: str = Field("local", json_schema_extra={"keyed_when_set": True})


def write_results(config: ResultsConfig, *, scores: pl.DataFrame, run: Frames, out: Path) -> dict[str, pl.DataFrame]:
    """Write the files of one model below `out`, for each dataset of the scores.

    `run` may come in frames; of several, one is in memory at a time. Of its queries those with scores are written.
    """
    model = file_name(config.model)
    runs = _folder(out / "runs" / model)
    names = file_names(scores["dataset"].unique().sort())
    for dataset, own in _by_dataset(scores):
        name = names[dataset]
        table = own.pivot("measure", index="query_id", values="value").sort("query_id")
        _folder(out / "queries" / model).joinpath(f"{name}.{config.split}.tsv").write_text(
            table.write_csv(separator="\t"), encoding="utf-8"
        )
        result = task_result(config, dataset, own)
        place = _folder(out / "results" / model / file_name(config.revision)) / f"{name}.json"
        place.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _write_run(config, scores, frames_of(run), {n: runs / f"{at}.{config.split}.trec.gz" for n, at in names.items()})
    return {}


def task_result(config: ResultsConfig, dataset: str, scores: pl.DataFrame) -> dict[str, Any]:
    """Return the mean scores of a dataset as a task result of mteb.

    mteb's `recall_at_100` is R@100, `mrr_at_10` is RR@10; a measure that it does not have keeps its name.
    """
    means = scores.group_by("measure").agg(pl.col("value").mean()).sort("measure")
    values = dict(means.iter_rows())
    main = values.get(config.main, next(iter(values.values()), 0.0))
    found = {
        **{mteb_name(name): round(value, 6) for name, value in values.items()},
        "main_score": round(main, 6),
        "hf_subset": "default",
        "languages": list(config.languages.get(dataset, ())),
    }
    return {
        "dataset_revision": config.data,
        "task_name": dataset,
        "mteb_version": FORMAT,
        "scores": {config.split: [found]},
        "evaluation_time": None,
        "kg_co2_emissions": None,
    }


def mteb_name(measure: str) -> str:
    """Return mteb's name of a measure.

    >>> mteb_name("nDCG@10"), mteb_name("RR@10"), mteb_name("R@100"), mteb_name("Bpref")
    ('ndcg_at_10', 'mrr_at_10', 'recall_at_100', 'Bpref')
    """
    found = re.fullmatch(r"(\w+)@(\d+)", measure)
    return f"{_MTEB[found[1]]}_at_{found[2]}" if found and found[1] in _MTEB else measure


def file_name(name: str) -> str:
    """Return a name fit for a file or folder.

    >>> file_name("a/b c"), file_name("..")
    ('a__b_c', '_')
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name.replace("/", "__"))
    return plain.strip(".") or "_"


def _by_dataset(scores: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    groups = scores.sort("dataset").partition_by("dataset", maintain_order=True)
    return [(str(own["dataset"][0]), own) for own in groups]


def _write_run(
    config: ResultsConfig, scores: pl.DataFrame, frames: Iterable[pl.DataFrame], places: Mapping[str, Path]
) -> None:
    asked = scores.select("dataset", "query_id").unique()
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for frame in frames:
            ours = frame.join(asked, on=["dataset", "query_id"], how="semi", maintain_order="left")
            for own in ours.partition_by("dataset", maintain_order=True):
                dataset = str(own["dataset"][0])
                if dataset not in files:
                    raw = stack.enter_context(places[dataset].open("wb"))
                    files[dataset] = stack.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0))
                files[dataset].write(_lines(own, config.model).encode())


def _lines(run: pl.DataFrame, model: str) -> str:
    """Return lines `query Q0 passage rank score model`; white space in an id becomes an underscore, as in TREC."""
    ids = [pl.col(name).str.replace_all(r"\s", "_") for name in ("query_id", "doc_id")]
    columns = [ids[0], pl.lit("Q0").alias("q0"), ids[1], "rank", "score", pl.lit(file_name(model)).alias("tag")]
    return run.select(columns).write_csv(separator=" ", include_header=False, quote_style="never")


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
