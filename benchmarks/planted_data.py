"""Read a collection of people's labels, deal it into folds, and hide known positives among mined negatives.

Each fold has queries and passages of its own: a passage belongs to the fold whose queries look for it, and one that
nobody looks for to a fold by chance. Rows are made of passages of their query's fold, and a test query is searched
among those of its fold. So no treatment meets a passage of the test in training, as a positive or as a negative.

A query with two or more relevant passages keeps one as its positive, drawn from those of its highest grade. The others
are hidden among its negatives, those first that the untrained model ranks first, as that is how false negatives get
there; at least one negative is a mined one. These are the planted false negatives. Further relevant passages are in no
table. The other negatives are mined by the untrained model, without what people called relevant, and without the pairs
of `qrels/minus1.tsv`.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.planted_folds import SEED, deal, settle
from tasks import schemas
from tasks.mining.adopt import AdoptConfig, adopt
from tasks.texts import hash_guard, hash_passage, hash_shown, hash_text

COLLECTIONS = ("cranfield", "mtrag")
PLANT_FROM = 2  # relevant passages of a query in which some are hidden
PICKED = 7  # negatives of a row (the paper's number)
PICKED_OF: Mapping[str, int] = {"mtrag": 4}  # it has 2.6 relevant passages for a query, Cranfield 7.2
RESERVE = 25  # mined passages that may replace a removed negative
_LABELS = {"query_id": pl.String, "doc_id": pl.String, "relevance": pl.Int32}


@dataclass(frozen=True)
class Collection:
    """A collection in the method's tables.

    groups: query_id, group (a conversation, or the query itself), fold. homes: doc_id and fold of the passages.
    unusable: pairs that are no negatives, as the collection does not say what they are. left_out: how many labels are
    between folds; they are not in `qrels`. deal: the seed of the folds and of which positive a query keeps.
    """

    name: str
    queries: pl.DataFrame
    passages: pl.DataFrame
    qrels: pl.DataFrame
    groups: pl.DataFrame
    homes: pl.DataFrame
    unusable: frozenset[tuple[str, str]]
    left_out: int = 0
    deal: int = SEED

    def with_splits(self, splits: Mapping[int, str]) -> "Collection":
        """Give the queries of each fold a split; those of other folds are for training."""
        named = self.groups.select(
            "query_id", split=pl.col("fold").replace_strict(dict(splits), default="train", return_dtype=pl.String)
        )
        queries = self.queries.drop("split").join(named, on="query_id").select(*schemas.QUERIES.columns)
        return replace(self, queries=queries.sort(schemas.QUERIES.key))

    def part(self, split: str) -> dict[str, pl.DataFrame]:
        """Return the queries of a split, the passages of their folds, and the labels: what is scored."""
        queries = self.queries.filter(pl.col("split") == split)
        folds = self.groups.join(queries, on="query_id", how="semi").select("fold").unique()
        own = self.homes.join(folds, on="fold", how="semi")
        passages = self.passages.join(own, on="doc_id", how="semi", maintain_order="left")
        return {"queries": queries, "passages": passages, "qrels": self.qrels.join(queries, on="query_id", how="semi")}


@dataclass(frozen=True)
class Planted:
    """Training rows with planted false negatives. hidden: query_id and doc_id of these."""

    positives: pl.DataFrame
    candidates: pl.DataFrame
    negatives: pl.DataFrame
    reserve: pl.DataFrame
    hidden: pl.DataFrame

    @property
    def tables(self) -> dict[str, pl.DataFrame]:
        """The tables that a treatment reads, by name."""
        return {name: getattr(self, name) for name in ("positives", "candidates", "negatives", "reserve")}


def read_collection(folder: Path, seed: int = SEED) -> Collection:
    """Read a folder in the BEIR layout; passages without text and their labels are left out. seed: of the deal."""
    name = folder.name
    passages = pl.DataFrame(
        [
            (name, row["_id"], title := row.get("title") or "", row["text"], hash_passage(title, row["text"]))
            for row in _read_lines(folder / "corpus.jsonl")
            if row["text"].strip()
        ],
        schema=schemas.PASSAGES.columns,
        orient="row",
    )
    rows = list(_read_lines(folder / "queries.jsonl"))
    queries = pl.DataFrame(
        [(name, row["_id"], text := text_of(row), hash_text(text), "train") for row in rows],
        schema=schemas.QUERIES.columns,
        orient="row",
    )
    labels = _read_labels(folder / "qrels" / "test.tsv").filter(pl.col("relevance") >= 1)
    qrels = labels.join(passages, on="doc_id", how="semi").with_columns(dataset=pl.lit(name))
    queries = queries.join(qrels, on="query_id", how="semi")
    unknown = folder / "qrels" / "minus1.tsv"
    pairs = _read_labels(unknown).select("query_id", "doc_id").rows() if unknown.exists() else []
    groups = deal(queries["query_id"], qrels, seed)
    homes = settle(_hashed(passages).select("doc_id", copy="guard_hash"), qrels, groups, seed)
    within = qrels.join(groups, on="query_id").join(homes, on=["doc_id", "fold"], how="semi")
    return Collection(
        name,
        queries.join(within, on="query_id", how="semi"),
        passages,
        within.select(*schemas.QRELS.columns),
        groups.join(within, on="query_id", how="semi").sort("query_id"),
        homes,
        frozenset(pairs),
        qrels.height - within.height,
        seed,
    )


def text_of(row: Mapping[str, Any]) -> str:
    """Return the text of a query; of a turn that does not stand alone, with the turns before it."""
    alone = row.get("standalone_rewrite", True)
    return str(row["text"] if alone else row.get("text_with_history", row["text"]))


def picked(name: str) -> int:
    """Return how many negatives a row of a collection has."""
    return PICKED_OF.get(name, PICKED)


def plant(collection: Collection, scores: npt.NDArray[np.float32]) -> Planted:
    """Hide positives among the negatives of each query.

    scores: of all passages for all queries by the model that mines, shape (queries, passages), in the tables' order.
    """
    hashed = _hashed(collection.passages)
    relevant = collection.qrels.join(hashed, on=["dataset", "doc_id"])
    homes = collection.passages.join(collection.homes, on="doc_id", maintain_order="left")["fold"].to_numpy()
    fold_of = dict(collection.groups.select("query_id", "fold").iter_rows())
    numbers = {doc_id: place for place, doc_id in enumerate(collection.passages["doc_id"])}
    texts = collection.passages["text_hash"].to_numpy()
    size, rng = picked(collection.name), np.random.default_rng(collection.deal)
    kept, given, hidden = [], [], []
    of_query = relevant.sort("query_id", "doc_id").partition_by("query_id", as_dict=True)
    for place, query_id in enumerate(collection.queries["query_id"]):
        frame = of_query[(query_id,)]
        of_doc = {doc_id: float(scores[place][numbers[doc_id]]) for doc_id in frame["doc_id"]}
        own, secret = _choose(frame, of_doc, size - 1, rng)
        near = np.where(homes == fold_of[query_id], scores[place], -np.inf)
        mined = _mined(collection, query_id, near, set(frame["text_hash"]), texts)
        picks = sorted([*secret, *mined[: size - len(secret)]], key=lambda one: -scores[place][numbers[one]])
        listed = [*picks, *mined[size - len(secret) :][:RESERVE]]
        kept += [(query_id, one) for one in own]
        hidden += [(query_id, one) for one in secret]
        given += [(query_id, one, rank, float(scores[place][numbers[one]])) for rank, one in enumerate(listed, start=1)]
    columns = {"query_id": pl.String, "doc_id": pl.String}
    positives = pl.DataFrame(kept, schema=columns, orient="row").join(hashed, on="doc_id")
    negatives = pl.DataFrame(given, schema={**columns, "rank": pl.Int32, "score": pl.Float64}, orient="row")
    labelled = positives.with_columns(source=pl.lit("qrels")).select(*schemas.POSITIVES.columns)
    adopted = adopt(
        AdoptConfig(num_negatives=size),
        given=negatives.join(hashed, on="doc_id").select(*schemas.GIVEN.columns),
        queries=collection.queries,
        positives=labelled,
        irrelevant=schemas.IRRELEVANT.empty(),
    )
    tables = {name: adopted[name] for name in ("candidates", "negatives", "reserve")}
    found = pl.DataFrame(hidden, schema=columns, orient="row")
    return Planted(labelled, **tables, hidden=found.join(tables["negatives"], on=["query_id", "doc_id"], how="semi"))


def describe(collection: Collection, planted: Planted) -> dict[str, Any]:
    """Count what a collection has, and what is planted."""
    per_query = planted.hidden.group_by("query_id").len()
    return {
        "queries": collection.queries.height,
        "groups": collection.groups["group"].n_unique(),
        "passages": collection.passages.height,
        "relevant_pairs": collection.qrels.height,
        "labels_between_folds": collection.left_out,
        "passages_by_fold": collection.homes.group_by("fold").len().sort("fold")["len"].to_list(),
        "queries_by_fold": collection.groups.group_by("fold").len().sort("fold")["len"].to_list(),
        "rows_with_planted": per_query.height,
        "planted": planted.hidden.height,
        "labelled_positives": planted.positives.height,
        "negatives": planted.negatives.height,
        "planted_share_of_negatives": round(planted.hidden.height / planted.negatives.height, 4),
    }


def _choose(
    frame: pl.DataFrame, scores: Mapping[str, float], most: int, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Return the positives that a query keeps, and those that are hidden; copies of a text count once."""
    distinct = frame.unique("guard_hash", keep="first", maintain_order=True)
    ids, grades = distinct["doc_id"].to_list(), distinct["relevance"].to_numpy()
    if len(ids) < PLANT_FROM:
        return ids, []
    first = ids[int(rng.choice(np.flatnonzero(grades == grades.max())))]
    return [first], sorted(set(ids) - {first}, key=lambda one: (-scores[one], one))[:most]


def _mined(
    collection: Collection, query_id: str, scores: npt.NDArray[np.float32], relevant: set[str], texts: npt.NDArray[Any]
) -> list[str]:
    """Return the passages with the highest scores that nobody called relevant, the best first."""
    found: list[str] = []
    ids = collection.passages["doc_id"]
    for place in np.argsort(-scores, kind="stable"):
        doc_id = ids[int(place)]
        if scores[place] == -np.inf:
            break
        if texts[place] not in relevant and (query_id, doc_id) not in collection.unusable:
            found.append(doc_id)
        if len(found) == picked(collection.name) + RESERVE:
            break
    return found


def _hashed(passages: pl.DataFrame) -> pl.DataFrame:
    """Return dataset, doc_id and the hashes of each passage."""
    shown = [
        (hash_shown(title, text), hash_guard(title, text)) for title, text in passages["title", "text"].iter_rows()
    ]
    copies = pl.DataFrame(shown, schema={"shown_hash": pl.String, "guard_hash": pl.String}, orient="row")
    return pl.concat([passages.select("dataset", "doc_id", "text_hash"), copies], how="horizontal")


def _read_labels(path: Path) -> pl.DataFrame:
    return pl.read_csv(
        path, separator="\t", has_header=True, new_columns=list(_LABELS), schema_overrides=[*_LABELS.values()]
    )


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    packed = path.with_name(f"{path.name}.gz")
    with gzip.open(packed, "rt", encoding="utf-8") if packed.exists() else path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
