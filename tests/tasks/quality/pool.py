"""A pool of candidates with decisions, and a sample drawn from it."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from tasks.quality.sample import SampleConfig, sample
from tasks.schemas import CANDIDATES, SAMPLES, VERDICTS
from tasks.texts import combine_hashes, hash_passage, hash_text

Frames = dict[str, pl.DataFrame]


COUNTS = {("relevant", True): 2, ("not_relevant", False): 30, ("not_relevant", True): 10, ("unsure", True): 10}


def build(
    counts: Mapping[tuple[str, bool], int] = COUNTS, text: str = "passage {}", query: str = "what", doc: str = "n{}"
) -> Frames:
    """As many candidates of one query as `counts` says for each (state, whether the LLM was asked)."""
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    texts = {doc.format(n): text.format(n) for n in range(len(kinds))} | {"p": "positive"}
    positives_hash = combine_hashes([hash_passage("", "positive")])
    candidates = [
        ("d", "q", doc_id, hash_passage("", shown), hash_text(query), positives_hash, "dense", 1, 0.5)
        for doc_id, shown in texts.items()
        if doc_id != "p"
    ]
    decisions = [
        ("d", "q", doc.format(n), "cascade", "judge", state, 0.5, None, None, "call" if asked else None, 1)
        for n, (state, asked) in enumerate(kinds)
    ]
    return {
        "candidates": pl.DataFrame(candidates, schema=CANDIDATES.columns, orient="row"),
        "decisions": pl.DataFrame(decisions, schema=VERDICTS.columns, orient="row"),
        "queries": pl.DataFrame({"dataset": "d", "query_id": "q", "text": query, "text_hash": hash_text(query)}),
        "passages": pl.DataFrame(
            [("d", doc_id, "", shown, hash_passage("", shown)) for doc_id, shown in texts.items()],
            schema=["dataset", "doc_id", "title", "text", "text_hash"],
            orient="row",
        ),
        "positives": pl.DataFrame(
            {"dataset": "d", "query_id": "q", "doc_id": "p", "text_hash": hash_passage("", "positive")}
        ),
    }


def draw(frames: Frames, out: Path, **settings: int | str) -> pl.DataFrame:
    samples = sample(SampleConfig.model_validate(settings), **frames, out=out)["samples"]
    assert dict(samples.schema) == SAMPLES.columns
    return samples
