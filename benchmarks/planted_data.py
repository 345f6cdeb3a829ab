"""Read a collection of people's labels, deal its queries into folds, and hide known positives among mined negatives.

A query with three or more relevant passages keeps one as its positive, drawn from those of its highest grade. Up to
four others are hidden among its negatives: these are the planted false negatives. Its further relevant passages are in
no table. A query with one or two relevant passages keeps them all, and nothing is hidden. The other negatives are mined
by the untrained model, without what people called relevant, and without the pairs of `qrels/minus1.tsv`.
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

from tasks import schemas
from tasks.mining.adopt import AdoptConfig, adopt
from tasks.texts import hash_guard, hash_passage, hash_shown, hash_text

COLLECTIONS = ("cranfield", "mtrag")
FOLDS = 5
SEED = 20  # of the folds and of what is hidden
PLANT_FROM = 3  # relevant passages of a query in which some are hidden
MOST_HIDDEN = 4
PICKED = 7  # negatives of a row
RESERVE = 5  # mined passages that may replace a removed negative
_PAIR = ["dataset", "query_id", "doc_id"]
_LABELS = {"query_id": pl.String, "doc_id": pl.String, "relevance": pl.Int32}


@dataclass(frozen=True)
class Collection:
    """A collection in the method's tables.

    groups: query_id, group (a conversation, or the query itself), fold. unusable: pairs that are no negatives, as the
    collection does not say what they are.
    """

    name: str
    queries: pl.DataFrame
    passages: pl.DataFrame
    qrels: pl.DataFrame
    groups: pl.DataFrame
    unusable: frozenset[tuple[str, str]]

    def with_splits(self, splits: Mapping[int, str]) -> "Collection":
        """Give the queries of each fold a split; those of other folds are for training."""
        named = self.groups.select(
            "query_id", split=pl.col("fold").replace_strict(dict(splits), default="train", return_dtype=pl.String)
        )
        queries = self.queries.drop("split").join(named, on="query_id").select(*schemas.QUERIES.columns)
        return replace(self, queries=queries.sort(schemas.QUERIES.key))


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


def read_collection(folder: Path) -> Collection:
    """Read a folder in the BEIR layout; passages without text and their labels are left out."""
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
    return Collection(
        name, queries, passages, qrels.select(*schemas.QRELS.columns), deal(queries["query_id"]), frozenset(pairs)
    )


def text_of(row: Mapping[str, Any]) -> str:
    """Return the text of a query; of a turn that does not stand alone, with the turns before it."""
    alone = row.get("standalone_rewrite", True)
    return str(row["text"] if alone else row.get("text_with_history", row["text"]))


def deal(query_ids: pl.Series) -> pl.DataFrame:
    """Deal queries into folds, the turns of a conversation together: query_id, group, fold."""
    named = pl.DataFrame({"query_id": query_ids}).with_columns(group=pl.col("query_id").str.split("<::>").list.first())
    groups = named.group_by("group").len().sort("group")
    order = np.random.default_rng(SEED).permutation(groups.height)
    sizes, fold_of = np.zeros(FOLDS, dtype=np.int64), {}
    for place in sorted(order.tolist(), key=lambda one: -int(groups["len"][one])):  # long conversations first
        fold = int(np.argmin(sizes))
        fold_of[groups["group"][place]] = fold
        sizes[fold] += int(groups["len"][place])
    return named.with_columns(fold=pl.col("group").replace_strict(fold_of, return_dtype=pl.Int64)).sort("query_id")


def plant(collection: Collection, scores: npt.NDArray[np.float32]) -> Planted:
    """Hide positives among the negatives of each query.

    scores: of all passages for all queries by the model that mines, shape (queries, passages), in the tables' order.
    """
    hashed = _hashed(collection.passages)
    relevant = collection.qrels.join(hashed, on=["dataset", "doc_id"])
    numbers = {doc_id: place for place, doc_id in enumerate(collection.passages["doc_id"])}
    texts = collection.passages["text_hash"].to_numpy()
    rng = np.random.default_rng(SEED)
    kept, given, hidden = [], [], []
    of_query = relevant.sort("query_id", "doc_id").partition_by("query_id", as_dict=True)
    for place, query_id in enumerate(collection.queries["query_id"]):
        frame = of_query[(query_id,)]
        own, secret = _choose(frame, rng)
        mined = _mined(collection, query_id, scores[place], set(frame["text_hash"]), texts)
        picks = sorted([*secret, *mined[: PICKED - len(secret)]], key=lambda one: -scores[place][numbers[one]])
        listed = [*picks, *mined[PICKED - len(secret) :][:RESERVE]]
        kept += [(query_id, one) for one in own]
        hidden += [(query_id, one) for one in secret]
        given += [(query_id, one, rank, float(scores[place][numbers[one]])) for rank, one in enumerate(listed, start=1)]
    columns = {"query_id": pl.String, "doc_id": pl.String}
    positives = pl.DataFrame(kept, schema=columns, orient="row").join(hashed, on="doc_id")
    negatives = pl.DataFrame(given, schema={**columns, "rank": pl.Int32, "score": pl.Float64}, orient="row")
    labelled = positives.with_columns(source=pl.lit("qrels")).select(*schemas.POSITIVES.columns)
    adopted = adopt(
        AdoptConfig(num_negatives=PICKED),
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
        "queries_by_fold": collection.groups.group_by("fold").len().sort("fold")["len"].to_list(),
        "rows_with_planted": per_query.height,
        "planted": planted.hidden.height,
        "labelled_positives": planted.positives.height,
        "negatives": planted.negatives.height,
        "planted_share_of_negatives": round(planted.hidden.height / planted.negatives.height, 4),
    }


def _choose(frame: pl.DataFrame, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return the positives that a query keeps, and those that are hidden; copies of a text count once."""
    distinct = frame.unique("guard_hash", keep="first", maintain_order=True)
    ids, grades = distinct["doc_id"].to_list(), distinct["relevance"].to_numpy()
    if len(ids) < PLANT_FROM:
        return ids, []
    first = int(rng.choice(np.flatnonzero(grades == grades.max())))
    others = [one for place, one in enumerate(ids) if place != first]
    drawn = rng.permutation(len(others))[:MOST_HIDDEN]
    return [ids[first]], [others[place] for place in sorted(drawn.tolist())]


def _mined(
    collection: Collection, query_id: str, scores: npt.NDArray[np.float32], relevant: set[str], texts: npt.NDArray[Any]
) -> list[str]:
    """Return the passages with the highest scores that nobody called relevant, the best first."""
    found: list[str] = []
    ids = collection.passages["doc_id"]
    for place in np.argsort(-scores, kind="stable"):
        doc_id = ids[int(place)]
        if texts[place] not in relevant and (query_id, doc_id) not in collection.unusable:
            found.append(doc_id)
        if len(found) == PICKED + RESERVE:
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
