"""A pool of candidates with decisions, and a sample drawn from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from tasks.quality import sample as module
from tasks.quality.sample import SampleConfig, sample, shortlist, show_pairs
from tasks.schemas import CANDIDATES, SAMPLES, VERDICTS
from tasks.summaries import SHOWN
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
    """Draw a sample as the stages do, from one query part."""
    return draw_from([frames], out, **settings)


def draw_from(parts: Sequence[Frames], out: Path, **settings: int | str) -> pl.DataFrame:
    """Draw a sample as the stages do, from several query parts."""
    config = SampleConfig.model_validate(settings)
    short = [shortlist(config, candidates=part["candidates"], decisions=part["decisions"]) for part in parts]
    numbered = pl.concat(
        each["shortlist"].select("stratum", "hash", part=pl.lit(number, pl.Int32)) for number, each in enumerate(short)
    )
    made = module.draw(config, shortlist=numbered, strata=pl.concat(each["strata"] for each in short))
    drawn = dict(made["drawn"])
    texts = ("queries", "passages", "positives")
    shown = [
        show_pairs(config, drawn=frame, shortlist=short[part]["shortlist"], **{n: parts[part][n] for n in texts})
        for part, frame in drawn.items()
    ]
    frame = pl.concat([pl.DataFrame(schema=SHOWN.columns), *(each["shown"] for each in shown)])
    samples = sample(config, shown=frame, chances=made["chances"], out=out)["samples"]
    assert dict(samples.schema) == SAMPLES.columns
    return samples
