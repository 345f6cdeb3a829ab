"""Build the rows that a model is trained on from instances and texts, with the pairs that are no negatives.

A row is a query. Its positives and negatives take turns: `tasks.training.rotation` says which it has in an epoch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tasks.texts import combine_hashes, show_passage
from tasks.training.losses.pairs import Pairs, name_query, name_text
from tasks.training.train_config import TrainConfig

_CUT = 0.01  # probabilities are cut at it and at 1 minus it; a positive without a verdict has the latter
_STATES = {"none": (), "positives": (), "relevant": ("relevant",), "unsure": ("relevant", "unsure")}


@dataclass(frozen=True)
class Row:
    """A query with its positives and negatives, by the numbers of their texts; the negatives may be none."""

    query: int
    positives: tuple[int, ...]
    negatives: tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """The training rows, their texts, and counts.

    queries, passages: the texts by number.
    known: pairs in which the text is no negative of the query. soft: soft labels, if the objective learns from them.
    masked: negatives that the instances list and that are left out because the pair is known.
    few, bare: rows with fewer negatives than wanted, and with none.
    """

    rows: tuple[Row, ...]
    queries: tuple[str, ...]
    passages: tuple[str, ...]
    known: Pairs
    soft: Pairs | None
    instances: int
    masked: int
    few: int
    bare: int

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.rows)


@dataclass(frozen=True)
class _Instance:
    """An instance; its passages by number. name: the query in the store."""

    name: int
    query: str
    positives: tuple[int, ...]
    negatives: tuple[int, ...]


def training_rows(
    config: TrainConfig,
    *,
    instances: pl.DataFrame,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    known: pl.DataFrame | None = None,
) -> Rows:
    """Join the texts, check them against `texts_hash`, number them, and build the rows.

    known: KNOWN_PAIRS: pairs that were judged relevant or unsure, and soft labels; None: nothing was judged.

    Raises:
        ValueError: a text is missing or is not the one that the instance was made with, or a query is held out.
    """
    numbers: dict[str, int] = {}  # of passages, by their text
    names: dict[int, list[int]] = {}  # the numbers of the passages with a name
    read = list(_with_texts(instances, queries, passages, numbers, names))
    judged = _numbered(read, names, known)
    pairs = _known_pairs(config, read, numbers, judged)
    made, masked = [], 0
    for query, each in enumerate(read):
        # Soft labels are for what the judges are unsure of too, and no other row's passages are compared with them.
        negatives = tuple(
            number
            for number in each.negatives
            if not (number in each.positives if config.is_soft else pairs.holds(query, number))
        )
        masked += len(each.negatives) - len(negatives)
        positives = each.positives[:1] if config.positives == "first" else each.positives
        single = config.positives == "each"
        made += [Row(query, one, negatives) for one in ([(p,) for p in positives] if single else [positives])]
    return Rows(
        rows=tuple(made),
        queries=tuple(each.query for each in read),
        passages=tuple(numbers),
        known=pairs,
        soft=_soft_labels(config, read, len(numbers), judged) if config.is_soft else None,
        instances=instances.height,
        masked=masked,
        few=sum(0 < len(row.negatives) < config.num_negatives for row in made),
        bare=sum(not row.negatives for row in made) if config.num_negatives else 0,
    )


def _numbered(read: Sequence[_Instance], names: dict[int, list[int]], known: pl.DataFrame | None) -> pl.DataFrame:
    """Return the pairs that are judged, by the numbers of query and passage: number, passage, state, score."""
    queries = pl.DataFrame(
        {"query": [each.name for each in read], "number": range(len(read))},
        schema={"query": pl.UInt64, "number": pl.Int64},
    )
    texts = pl.DataFrame(
        {"text": list(names), "passage": list(names.values())},
        schema={"text": pl.UInt64, "passage": pl.List(pl.Int64)},
    ).explode("passage")
    if known is None:
        known = pl.DataFrame(schema={"query": pl.UInt64, "text": pl.UInt64, "state": pl.String, "score": pl.Float64})
    return known.join(queries, on="query").join(texts, on="text").select("number", "passage", "state", "score")


def _known_pairs(
    config: TrainConfig, read: Sequence[_Instance], numbers: dict[str, int], judged: pl.DataFrame
) -> Pairs:
    """Return the pairs in which the passage is no negative of the query, as far as `mask` says so.

    These are the positives of all rows with the query's text, but those that this row itself lists as negatives, as
    another dataset may mean something else by relevant; the query's own text; and what was judged.
    """
    found: list[tuple[int, int]] = []
    if config.mask != "none":
        of_text: dict[str, set[int]] = {}
        for each in read:
            of_text.setdefault(each.query, set()).update(each.positives)
        for query, each in enumerate(read):
            known = {*each.positives, *(of_text[each.query] - set(each.negatives))}
            found += [(query, passage) for passage in known]
            if each.query in numbers:
                found.append((query, numbers[each.query]))
    table = judged.filter(pl.col("state").is_in(_STATES[config.mask]))
    queries = [*(query for query, _ in found), *table["number"]]
    passages = [*(passage for _, passage in found), *table["passage"]]
    return Pairs.of(len(numbers), queries, passages)


def _soft_labels(config: TrainConfig, read: Sequence[_Instance], texts: int, judged: pl.DataFrame) -> Pairs:
    """Return the soft label of each pair that has one."""
    scored = judged.with_columns(pl.col("score").fill_nan(None)).drop_nulls("score")
    queries, passages, scores = (scored[name].to_numpy() for name in ("number", "passage", "score"))
    if config.soft_labels == "teacher":
        return Pairs.of(texts, queries, passages, scores)
    certain = [(query, passage) for query, each in enumerate(read) for passage in each.positives]
    asked = np.asarray(certain, dtype=np.int64).reshape(-1, 2)
    chances = np.clip(np.concatenate([scores, np.ones(len(asked))]), _CUT, 1 - _CUT)
    labels = np.log(chances) - np.log1p(-chances)
    return Pairs.of(texts, np.concatenate([queries, asked[:, 0]]), np.concatenate([passages, asked[:, 1]]), labels)


def _with_texts(
    instances: pl.DataFrame,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    numbers: dict[str, int],
    names: dict[int, list[int]],
) -> Iterator[_Instance]:
    """Yield each instance with its texts, in the order of the ids. `numbers` and `names` are filled on the way."""
    shown = _shown(instances, passages)
    asked = {
        (dataset, query_id): (text_hash, text, split)
        for dataset, query_id, text_hash, text, split in queries.join(instances, on=["dataset", "query_id"], how="semi")
        .select("dataset", "query_id", "text_hash", "text", "split")
        .iter_rows()
    }
    for row in instances.sort("dataset", "query_id").iter_rows(named=True):
        dataset, name = row["dataset"], f"{row['dataset']}/{row['query_id']}"
        try:
            query_hash, query, split = asked[dataset, row["query_id"]]
            sides = [[shown[dataset, doc_id] for doc_id in row[side]] for side in ("positives", "negatives")]
        except KeyError as error:
            raise ValueError(f"train: no text for {'/'.join(error.args[0])} of {name}; treat the same data") from error
        if split != "train":
            raise ValueError(f"train: {name} is held out (split {split}) and must not be trained on; treat again")
        hashes = [query_hash, *(text_hash for side in sides for text_hash, _ in side)]
        if combine_hashes(hashes) != row["texts_hash"]:
            raise ValueError(f"train: the texts of {name} are not those its instance was made with; treat again")
        for text_hash, text in (one for side in sides for one in side):
            number = numbers.setdefault(text, len(numbers))
            of_name = names.setdefault(name_text(text_hash), [])
            if number not in of_name:
                of_name.append(number)
        positives, negatives = (tuple(dict.fromkeys(numbers[text] for _, text in side)) for side in sides)
        yield _Instance(name_query(dataset, query_hash), query, positives, negatives)


def _shown(instances: pl.DataFrame, passages: pl.DataFrame) -> dict[tuple[str, str], tuple[str, str]]:
    """Return hash and text of each passage that an instance names, by dataset and id."""
    pairs = pl.concat(
        instances.select("dataset", doc_id=side).explode("doc_id").drop_nulls() for side in ("positives", "negatives")
    )
    wanted = passages.join(pairs, on=["dataset", "doc_id"], how="semi")
    return {
        (dataset, doc_id): (text_hash, show_passage(title, text))
        for dataset, doc_id, title, text, text_hash in wanted.select(
            "dataset", "doc_id", "title", "text", "text_hash"
        ).iter_rows()
    }
