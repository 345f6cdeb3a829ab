"""Build the rows that a model is trained on from instances and texts, and define the settings of training."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.texts import combine_hashes, hash_text, part_of, show_passage


class TrainConfig(BaseModel):
    """Settings of training; the defaults are for a small model on two cores.

    The paper (§4) trains on 7 negatives and 350 tokens at temperature 0.01 and learning rate 2e-5.

    model: directory of the base model. Its digest is in the key of the stage, the path is not. Set by the flow.
    steps: optimiser steps, the same for each treatment.
    batch_size: rows per step. num_negatives: hard negatives per row.
    learning_rate, warmup_ratio: of AdamW; after the warm-up the rate falls linearly.
    query_prompt, passage_prompt: prefix of each text of that role. seed: of the order of rows and of dropout.
    device: device of the model. bf16: mixed precision, for GPUs.
    positives: "all" makes one row for each positive of a query, "first" only for the first one.
    temperature: similarities are divided by it.
    max_seq_length: the most tokens read of a text, limited by the model.
    threads: CPU threads. Sums are split between them, so the last bits of the weights depend on their number.
    frozen_layers: number of lowest layers that are not trained; the token embeddings are not trained then either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field("", json_schema_extra={"operational": True})
    steps: int = Field(60, ge=1)
    batch_size: int = Field(16, ge=2)
    num_negatives: int = Field(3, ge=0)
    positives: Literal["all", "first"] = "all"
    learning_rate: float = Field(2e-5, gt=0)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    temperature: float = Field(0.05, gt=0)
    max_seq_length: int = Field(128, ge=8)
    frozen_layers: int = Field(0, ge=0)
    query_prompt: str = ""
    passage_prompt: str = ""
    seed: int = Field(42, ge=0)
    threads: int = Field(2, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"
    bf16: bool = (
        False  # with AVX-512-BF16 but no AMX it is slower than float32, and on a CPU there is no memory to save
    )


@dataclass(frozen=True)
class Rows:
    """The training rows, and counts of instances and rows.

    columns: anchor, positive, negative_1 … negative_n, all of the same length.
    padded: rows in which too few negatives are repeated.
    borrowed: rows of instances without a negative, with negatives of other instances.
    skipped: instances without a negative for which no other instance has one.
    """

    columns: dict[str, list[str]]
    instances: int
    padded: int
    borrowed: int
    skipped: int

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.columns["anchor"])


def training_rows(
    config: TrainConfig, *, instances: pl.DataFrame, queries: pl.DataFrame, passages: pl.DataFrame
) -> Rows:
    """Join the texts, check them against `texts_hash`, and build rows of equal width.

    A row with fewer than `num_negatives` negatives repeats them in turn: n1 n2 n1. A row without any gets negatives of
    other instances, chosen by a hash of its query: to it they are what the other texts of its batch are. If no instance
    has a negative, the rows are pairs.
    """
    texts = list(_with_texts(instances, queries, passages))
    lenders = list(dict.fromkeys(negative for _, _, negatives in texts for negative in negatives))
    width = config.num_negatives if lenders else 0
    table: list[tuple[str, ...]] = []
    padded = borrowed = skipped = 0
    for query, positives, negatives in texts:
        lent = [] if negatives or not width else _borrow(lenders, query, positives, width)
        if width and not negatives and not lent:
            skipped += 1
            continue
        used = positives if config.positives == "all" else positives[:1]
        hard = list(islice(cycle(negatives or lent), width))
        table += [(query, positive, *hard) for positive in used]
        padded += len(used) if 0 < len(negatives) < width else 0
        borrowed += len(used) if lent else 0
    names = ["anchor", "positive", *(f"negative_{i}" for i in range(1, width + 1))]
    columns = {name: [row[i] for row in table] for i, name in enumerate(names)}
    return Rows(columns, instances=instances.height, padded=padded, borrowed=borrowed, skipped=skipped)


def _borrow(lenders: list[str], query: str, positives: list[str], count: int) -> list[str]:
    """Choose up to `count` of the other instances' negatives, none of which is the query or a positive of it.

    >>> _borrow(["n1", "n2", "p"], "q", ["p"], 3)
    ['n2', 'n1']
    """
    start = part_of(hash_text(query), len(lenders))
    turned = (lenders[(start + step) % len(lenders)] for step in range(len(lenders)))
    return list(islice((text for text in turned if text != query and text not in positives), count))


def _with_texts(
    instances: pl.DataFrame, queries: pl.DataFrame, passages: pl.DataFrame
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield the texts of query, positives and negatives of each instance, in the order of the ids."""
    pairs = pl.concat(
        instances.select("dataset", doc_id=side).explode("doc_id").drop_nulls() for side in ("positives", "negatives")
    )
    wanted = passages.join(pairs, on=["dataset", "doc_id"], how="semi")
    shown = {
        (dataset, doc_id): (text_hash, show_passage(title, text))
        for dataset, doc_id, title, text, text_hash in wanted.select(
            "dataset", "doc_id", "title", "text", "text_hash"
        ).iter_rows()
    }
    asked = {
        (dataset, query_id): (text_hash, text, split)
        for dataset, query_id, text_hash, text, split in queries.join(instances, on=["dataset", "query_id"], how="semi")
        .select("dataset", "query_id", "text_hash", "text", "split")
        .iter_rows()
    }
    for row in instances.sort("dataset", "query_id").iter_rows(named=True):
        name = f"{row['dataset']}/{row['query_id']}"
        try:
            query_hash, query, split = asked[row["dataset"], row["query_id"]]
            positives = [shown[row["dataset"], doc_id] for doc_id in row["positives"]]
            negatives = [shown[row["dataset"], doc_id] for doc_id in row["negatives"]]
        except KeyError as error:
            raise ValueError(f"train: no text for {'/'.join(error.args[0])} of {name}; treat the same data") from error
        if split != "train":
            raise ValueError(f"train: {name} is held out (split {split}) and must not be trained on; treat again")
        hashes = [query_hash, *(text_hash for text_hash, _ in (*positives, *negatives))]
        if combine_hashes(hashes) != row["texts_hash"]:
            raise ValueError(f"train: the texts of {name} are not those its instance was made with; treat again")
        yield query, [text for _, text in positives], [text for _, text in negatives]
