"""Write TREC DL 2019 as a source for `reneg curate`: with planted false negatives, and judges from a file.

    python -m benchmarks.dl19_source FOLDER [--data ../shared/data/trec_dl19]

Each query keeps one labelled positive: its passage with the highest grade, of several the one with the lowest id. Its
BM25 candidates that people judged are its given negatives (`runs/bm25.trec`). Those of grade 2 and above are the
planted false negatives (`qrels/known.tsv`); no judge reads them. The tiers take their verdicts from `judges.tsv.gz` of
the collection. FOLDER/dl19.yaml is a configuration that judges and decides, and trains nothing.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from benchmarks.similarity_trec_dl19 import DATASET, RELEVANT_FROM

# The judges of the file: the scale of each column.
JUDGES: Mapping[str, str] = {
    "gpt4o_umbrela": "grade",
    "monot5_base": "probability",
    "monot5_3b": "probability",
    "rank1_3b": "probability",
    "rank1_7b": "probability",
    "rank1_14b": "probability",
    "rankllama_v1_7b_lora_passage": "logit",
}
_PAIR = ["query_id", "doc_id"]


@dataclass(frozen=True)
class Source:
    """A source of DL 2019 on the disk.

    folder: the BEIR folder that `source.path` names. judges: the file with verdicts of every pair that people judged.
    grades: query_id, doc_id, grade (0 to 3) of the candidates. Grades 2 and 3 are relevant.
    """

    folder: Path
    judges: Path
    grades: pl.DataFrame

    def tier(self, column: str, **changes: Any) -> dict[str, Any]:
        """Give the settings of a tier that reads a judge of the file; its name is that of the column, shortened."""
        engine = {
            "kind": "scores",
            "path": str(self.judges.resolve()),
            "columns": {"score": column},
            "scale": JUDGES[column],
        }
        everything = {"lower": 0.0, "upper": 1.0}
        return {"name": column.replace("_", "")[:20], "engine": engine, "escalate": everything, **changes}

    def config(self, tiers: Sequence[Mapping[str, Any]], **changes: Any) -> dict[str, Any]:
        """Give the settings of a curation that judges every candidate and trains nothing."""
        return {
            "name": "dl19",
            "source": {"path": str(self.folder.resolve())},
            "ingest": {"dataset": DATASET, "known_split": "known", "test_split": None, "holdout": 0.0},
            "tiers": list(tiers),
            "treatments": ["default", "relabel"],
            "train": None,
            **changes,
        }


def write_source(data: Path, folder: Path) -> Source:
    """Write the source into a folder that does not exist yet.

    Args:
        data: the folder of the collection.
        folder: where the source is written.

    Raises:
        FileNotFoundError: the collection is not there.
    """
    qrels = _read_qrels(data / "qrels" / "test.tsv")
    positives = (
        qrels.sort("grade", pl.col("doc_id").cast(pl.Int64), descending=[True, False])
        .unique("query_id", keep="first", maintain_order=True)
        .filter(pl.col("grade") >= RELEVANT_FROM)
    )
    found = _read_candidates(data / "candidates.jsonl.gz")
    judged = found.join(qrels, on=_PAIR).join(positives, on=_PAIR, how="anti").sort("query_id", "rank")
    (folder / "qrels").mkdir(parents=True)
    (folder / "runs").mkdir()
    needed = set(judged["doc_id"]) | set(positives["doc_id"])
    _write_texts(data / "corpus.jsonl.gz", folder / "corpus.jsonl", needed)
    _write_texts(data / "queries.jsonl", folder / "queries.jsonl", set(positives["query_id"]))
    _write_qrels(folder / "qrels" / "train.tsv", positives)
    _write_qrels(folder / "qrels" / "known.tsv", judged.filter(pl.col("grade") >= RELEVANT_FROM))
    lines = [
        f"{query} Q0 {doc} {rank} {score} bm25\n"
        for query, doc, rank, score in judged.select(*_PAIR, "rank", "score").iter_rows()
    ]
    (folder / "runs" / "bm25.trec").write_text("".join(lines))
    return Source(folder, data / "judges.tsv.gz", judged.select(*_PAIR, "grade").sort(_PAIR))


def _read_qrels(path: Path) -> pl.DataFrame:
    names = {"query_id": pl.String, "doc_id": pl.String, "grade": pl.Int64}
    return pl.read_csv(path, separator="\t", skip_rows=1, has_header=False, schema=names)


def _read_candidates(path: Path) -> pl.DataFrame:
    with gzip.open(path, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    pairs = [(row["query_id"], c["docid"], c["rank"], c["score"]) for row in rows for c in row["candidates"]]
    schema = {"query_id": pl.String, "doc_id": pl.String, "rank": pl.Int64, "score": pl.Float64}
    return pl.DataFrame(pairs, schema=schema, orient="row")


def _write_texts(source: Path, path: Path, wanted: set[str]) -> None:
    """Copy the lines of some ids."""
    with gzip.open(source, "rt") if source.suffix == ".gz" else source.open() as lines, path.open("w") as out:
        out.writelines(line for line in lines if json.loads(line)["_id"] in wanted)


def _write_qrels(path: Path, pairs: pl.DataFrame) -> None:
    rows = "".join(f"{query}\t{doc}\t{grade}\n" for query, doc, grade in pairs.select(*_PAIR, "grade").iter_rows())
    path.write_text(f"query-id\tcorpus-id\tscore\n{rows}")


def main() -> int:
    """Write the source, and a configuration of a cascade: monoT5-base, then GPT-4o on what that leaves open."""
    parser = argparse.ArgumentParser(description="TREC DL 2019 as a source, with judges from a file")
    parser.add_argument("folder", type=Path, help="where it is written")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/trec_dl19"), help="folder of the collection")
    arguments = parser.parse_args()
    source = write_source(arguments.data, arguments.folder / "source")
    strong = source.tier("gpt4o_umbrela", escalate={"lower": 0.0, "upper": 1.0, "max_share": 0.2})
    path = arguments.folder / "dl19.yaml"
    path.write_text(yaml.safe_dump(source.config([source.tier("monot5_base"), strong]), sort_keys=False))
    counts = {
        "pairs": source.grades.height,
        "queries": source.grades["query_id"].n_unique(),
        "configuration": str(path),
    }
    sys.stdout.write(json.dumps(counts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
