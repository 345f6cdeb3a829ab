"""Train the cross-encoder of `benchmarks.planted` on grades of people, and score pairs with it.

    python -m benchmarks.planted_teacher --folder FOLDER [--data ../shared/data]

No trained cross-encoder can be had from a package index, so this is one of our own: MiniLM with a head for one score,
trained on the 3,983 judged pairs of TREC DL 2019 (relevant from grade 2). It reads no label of the collections that are
planted. It is a weak teacher: 43 queries, one pass. It stands for the cross-encoder of three baselines: the relabelling
by a cross-encoder, TopK-PercPos, and distillation.
"""

import argparse
import gzip
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.planted_data import COLLECTIONS, Collection, Planted
from benchmarks.planted_setup import encoder_folder, prepare
from tasks.schemas import TEACHER
from tasks.texts import show_passage

RELEVANT_FROM = 2
SEED, BATCH, RATE = 7, 16, 5e-5
TRAIN_TOKENS, SCORE_TOKENS = 160, 224
_PAIR = ["dataset", "query_id", "doc_id"]
Pair = tuple[str, str]


def path_of(folder: Path, name: str) -> Path:
    """Name the file with the scores of a collection."""
    return folder / name / "teacher.parquet"


def read_graded(folder: Path) -> tuple[list[Pair], list[float]]:
    """Read the judged pairs of TREC DL 2019, and whether each is relevant."""
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        corpus = {row["_id"]: show_passage(row["title"], row["text"]) for row in map(json.loads, lines)}
    with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
        queries = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as lines:
        judged = [line.rstrip("\n").split("\t") for line in lines][1:]
    known = [(query, doc, int(grade)) for query, doc, grade in judged if query in queries and doc in corpus]
    return [(queries[query], corpus[doc]) for query, doc, _ in known], [
        float(grade >= RELEVANT_FROM) for _, _, grade in known
    ]


def train_cross_encoder(start: Path, pairs: Sequence[Pair], labels: Sequence[float], out: Path) -> list[float]:
    """Train for one pass with binary cross-entropy, write the model, and return the loss of each step."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(str(start))
    model = AutoModelForSequenceClassification.from_pretrained(str(start), num_labels=1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    batches = list(_batches(np.random.default_rng(SEED).permutation(len(pairs)), BATCH))
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, total_iters=len(batches))
    losses = []
    model.train()
    for number, rows in enumerate(batches):
        texts = _inputs(tokenizer, [pairs[row] for row in rows], TRAIN_TOKENS)
        wanted = torch.tensor([labels[row] for row in rows])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(**texts).logits[:, 0], wanted)
        loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        if number % 20 == 0:
            print(f"cross-encoder: step {number} of {len(batches)}, loss {losses[-1]:.3f}", flush=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        Path(part).rename(out)
        Path(part).mkdir()  # the context removes it
    return losses


def score_pairs(folder: Path, pairs: Sequence[Pair]) -> npt.NDArray[np.float64]:
    """Return P(relevant) of each pair."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(str(folder)).eval()
    order = np.argsort([len(query) + len(text) for query, text in pairs], kind="stable")  # equal lengths together
    found = np.empty(len(pairs))
    with torch.inference_mode():
        for number, rows in enumerate(_batches(order, 2 * BATCH)):
            logits = model(**_inputs(tokenizer, [pairs[row] for row in rows], SCORE_TOKENS)).logits[:, 0]
            found[rows] = torch.sigmoid(logits).numpy()
            if number % 20 == 0:
                print(f"cross-encoder: {number * 2 * BATCH} of {len(pairs)} pairs scored", flush=True)
    return found


def scored(collection: Collection, planted: Planted, folder: Path) -> pl.DataFrame:
    """Score the candidates and the labelled positives: TEACHER."""
    pairs = pl.concat(frame.select(_PAIR) for frame in (planted.candidates, planted.positives)).sort(_PAIR)
    texts = pairs.join(collection.queries.select("query_id", query="text"), on="query_id", maintain_order="left").join(
        collection.passages.select("doc_id", "title", "text"), on="doc_id", maintain_order="left"
    )
    read = [(query, show_passage(title, text)) for query, title, text in texts["query", "title", "text"].iter_rows()]
    return texts.with_columns(score=pl.Series(score_pairs(folder, read))).select(*TEACHER.columns)


def _inputs(tokenizer: Any, pairs: Sequence[Pair], tokens: int) -> Any:
    queries, texts = zip(*pairs, strict=True)
    return tokenizer(
        list(queries),
        list(texts),
        truncation="longest_first",
        max_length=tokens,
        padding=True,
        return_tensors="pt",
    )


def _batches(order: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def main() -> int:
    """Train the cross-encoder, and score the collections whose scores are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the collections")
    arguments = parser.parse_args()
    model = arguments.folder / "cross-encoder"
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not model.exists():
        train_cross_encoder(encoder_folder(), *read_graded(arguments.data / "trec_dl19"), model)
    for name in COLLECTIONS:
        if not path_of(arguments.folder, name).exists():
            collection, planted, _ = prepare(arguments.folder, arguments.data, name)
            scored(collection, planted, model).write_parquet(path_of(arguments.folder, name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
