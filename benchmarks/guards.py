"""Measure how well near duplicates are found, and how long it takes.

Two corpora. `generated`: texts of 100 random words, as frequent as in a language, of which some have a copy with 5, 10
or 20 % of its words replaced, removed or followed by another one. `real`: the documentation of installed libraries, as
the demo harvests it. On it all pairs are compared exactly, so its recall is that of the buckets on text that nobody
generated.

- `recall`: planted copies that are found, by the share of edited words.
- `precision`: found pairs that are planted.
- `bucket_recall`: of the pairs whose exact similarity reaches the limit, those that shared a bucket and were compared.
- `candidates_per_text`: pairs that are compared for each text.
- `cpu_seconds_per_100k`: of all threads, without store and orchestration: sketch, pair, compare.
- `band_bytes_per_text`: what the shuffle of the buckets writes.

    python -m benchmarks.guards

writes benchmarks/results/guards.json.
"""

import argparse
import io
import json
import random
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tasks.data.demo_corpus import HarvestConfig, harvest
from tasks.guards.compare import compare_texts
from tasks.guards.config import NearConfig, SketchConfig
from tasks.guards.duplicates import pair_texts, show, sketch_passages
from tasks.guards.sketches import shingle, similarities
from tasks.guards.tables import BANDS, NEAR_CANDIDATES
from tasks.schemas import PASSAGES
from tasks.texts import hash_passage

RESULT = Path(__file__).parent / "results" / "guards.json"
EDITS = (0.05, 0.1, 0.2)
SIMILARITIES = (0.4, 0.5, 0.6, 0.7, 0.8)
_PART = 50_000
_WORDS = 100
_SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sta", "vel", "tor", "da", "ren", "si", "pol", "gu", "n", "lis", "mor", "x")


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--copies", type=int, default=2_000, help="for each share of edited words")
    parser.add_argument("--real", type=int, default=2_000, help="passages of the real corpus")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    texts = generate(arguments.texts)
    planted = {share: plant(texts, arguments.copies, share) for share in EDITS}
    copies = {name: text for copied in planted.values() for name, text in copied.items()}
    found = {"generated": measure_generated(texts, copies)}
    print(json.dumps(found, indent=1), flush=True)
    found["real"] = measure_real(arguments.real)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def generate(count: int) -> dict[str, str]:
    """Return texts by id."""
    chance = random.Random(0)
    words = sorted({"".join(chance.choices(_SYLLABLES, k=chance.randint(1, 4))) for _ in range(30_000)})
    chance.shuffle(words)
    weights = np.cumsum([1 / (rank + 3) for rank in range(len(words))]).tolist()
    return {f"t{n}": " ".join(chance.choices(words, cum_weights=weights, k=_WORDS)) for n in range(count)}


def plant(texts: dict[str, str], count: int, share: float) -> dict[str, str]:
    """Return copies of the first texts with edited words, but those that stayed equal; the id names the original."""
    chance = random.Random(share)
    pool = " ".join(list(texts.values())[-200:]).split(" ")
    copies = {f"{name}:{share}": edit(text, share, chance, pool) for name, text in list(texts.items())[:count]}
    return {name: copy for name, copy in copies.items() if copy != texts[name.partition(":")[0]]}


def edit(text: str, share: float, chance: random.Random, pool: list[str]) -> str:
    """Replace or remove words, or put another one after them, each in a third of the cases."""
    made: list[str] = []
    for word in text.split(" "):
        if chance.random() >= share:
            made.append(word)
            continue
        kind = chance.randrange(3)
        made += [chance.choice(pool)] if kind == 0 else [] if kind == 1 else [word, chance.choice(pool)]
    return " ".join(made)


def measure_generated(texts: dict[str, str], copies: dict[str, str]) -> dict[str, Any]:
    """Measure time on the texts, and precision and recall with the copies among them."""
    passages = as_passages((texts | copies).items())
    near, costs = find(passages, min(SIMILARITIES))
    pairs = near.select("left_doc_id", "right_doc_id", "similarity").rows()
    found: dict[tuple[str, str], float] = {(min(a, b), max(a, b)): value for a, b, value in pairs}
    exact = exact_of_planted(texts, copies)
    figures = []
    for least in SIMILARITIES:
        kept = {pair for pair, value in found.items() if value >= least}
        reaching = {pair for pair, value in exact.items() if value >= least}
        among = {pair for pair in kept if pair[0].partition(":")[0] == pair[1].partition(":")[0]}
        by_share = {share: [pair for pair in exact if pair[1].endswith(f":{share}")] for share in EDITS}
        figures.append(
            {
                "similarity": least,
                "recall": {
                    f"{share:g}": round(sum(pair in kept for pair in of) / len(of), 4) for share, of in by_share.items()
                },
                "precision": round(len(among) / len(kept), 4) if kept else None,
                "found": len(kept),
                "bucket_recall": round(len(reaching & kept) / len(reaching), 4) if reaching else None,
            }
        )
    return {"texts": passages.height, "copies": len(copies), **costs, "by_similarity": figures}


def exact_of_planted(texts: dict[str, str], copies: dict[str, str]) -> dict[tuple[str, str], float]:
    """Return the exact similarity of each copy and its original."""
    names = [(name.partition(":")[0], name) for name in copies]
    left, right = shingle(pl.Series([texts[name] for name, _ in names])), shingle(pl.Series(list(copies.values())))
    rows = np.arange(len(names))
    return dict(zip(names, similarities(left, rows, right, rows, 0.0), strict=True))


def measure_real(count: int) -> dict[str, Any]:
    """Compare all pairs of a real corpus exactly, and say which the buckets find."""
    with tempfile.TemporaryDirectory(prefix="reneg-guards-") as folder:
        harvest(HarvestConfig(), out=Path(folder))
        (corpus,) = Path(folder).rglob("corpus.jsonl")
        rows = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    passages = as_passages((row["_id"], f"{row.get('title', '')} {row['text']}".strip()) for row in rows)
    passages = passages.unique("text_hash", maintain_order=True).head(count)
    exact = exact_pairs(passages, min(SIMILARITIES))
    near, costs = find(passages, min(SIMILARITIES))
    hashes = near.select("left_hash", "right_hash", "similarity").rows()
    found = {(left, right): value for left, right, value in hashes}
    figures = []
    for least in SIMILARITIES:
        reaching = {pair for pair, value in exact.items() if value >= least}
        kept = {pair for pair, value in found.items() if value >= least}
        figures.append(
            {
                "similarity": least,
                "pairs": len(reaching),
                "bucket_recall": round(len(reaching & kept) / len(reaching), 4) if reaching else None,
            }
        )
    return {"texts": passages.height, **costs, "by_similarity": figures}


def exact_pairs(passages: pl.DataFrame, least: float) -> dict[tuple[str, str], float]:
    """Return all pairs of texts whose similarity reaches a limit, by their hashes in order."""
    ordered = passages.sort("text_hash")
    shingles, hashes = shingle(show(ordered)), ordered["text_hash"].to_list()
    found: dict[tuple[str, str], float] = {}
    for row in range(len(hashes) - 1):
        others = np.arange(row + 1, len(hashes))
        values = similarities(shingles, np.full(len(others), row), shingles, others, least)
        found |= {(hashes[row], hashes[other]): v for other, v in zip(others, values, strict=True) if v >= least}
    return found


def as_passages(texts: Iterable[tuple[str, str]]) -> pl.DataFrame:
    """Return texts as passages of one dataset."""
    rows = [("d", name, "", text, hash_passage("", text)) for name, text in texts]
    return pl.DataFrame(rows, schema=PASSAGES.columns, orient="row")


def find(passages: pl.DataFrame, similarity: float) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Find near duplicates as the stages do; returns them, and what it cost."""
    parts = list(passages.iter_slices(_PART))
    config = SketchConfig(shards=len(parts), generations=(len(parts),))
    began = time.process_time()
    bands = [list(sketch_passages(config, passages=part)["bands"]) for part in parts]
    sketched = time.process_time()
    pairs: list[tuple[int, pl.DataFrame]] = []
    for shard in range(len(parts)):
        mine = [frame for scattered in bands for at, frame in scattered if at == shard]
        pairs += list(pair_texts(config, bands=pl.concat([BANDS.empty(), *mine]))["pairs"])
    paired = time.process_time()
    near = []
    for shard in range(len(parts)):
        mine = pl.concat([NEAR_CANDIDATES.empty(), *(frame for at, frame in pairs if at == shard)])
        needed = pl.concat([mine["left_hash"], mine["right_hash"].alias("left_hash")]).unique().to_frame("text_hash")
        texts = passages.join(needed, on="text_hash", how="semi")
        near.append(compare_texts(NearConfig(similarity=similarity), pairs=mine, texts=texts)["near"])
    compared = time.process_time()
    written = sum(_bytes_of(frame) for scattered in bands for _, frame in scattered)
    distinct = pl.concat([frame for _, frame in pairs] or [NEAR_CANDIDATES.empty()]).unique(["left_hash", "right_hash"])
    scale = 100_000 / passages.height
    seconds = {"sketch": sketched - began, "pair": paired - sketched, "compare": compared - paired}
    return pl.concat(near), {
        "cpu_seconds_per_100k": {name: round(value * scale, 2) for name, value in seconds.items()},
        "candidates_per_text": round(distinct.height / passages.height, 3),
        "band_bytes_per_text": round(written / passages.height, 1),
    }


def _bytes_of(frame: pl.DataFrame) -> int:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", compression_level=3)
    return buffer.tell()


if __name__ == "__main__":
    main()
