"""Sum up one query part for the report: the verdicts, and what relabelling changed."""

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.report.parts import tallies as counted
from tasks.report.parts.errors import count_errors
from tasks.report.parts.scores import count_relevant, count_scores, place_dots
from tasks.schemas import KNOWN, VERDICTS
from tasks.summaries import CALL_SUMS, CHOSEN, SCORES
from tasks.texts import hash_text
from tasks.verdicts.features import SIMILARITY

CASCADE = "cascade"
DOTTED = "dotted"  # a tally: pairs that similarity and the last tier scored
_QUERY = ["dataset", "query_id"]


class SumUpConfig(BaseModel):
    """What is counted.

    tiers: the tiers apart from similarity, in the order asked. reads: tokens that the trainer reads of a passage.
    Both are set by the flow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiers: tuple[str, ...] = ("llm",)
    reads: int | None = None


class EditsConfig(BaseModel):
    """How many queries the report shows as examples; set by the flow."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    examples: int = Field(6, ge=0)


def sum_up_verdicts(  # noqa: PLR0913 - tables by name
    config: SumUpConfig,
    *,
    queries: pl.DataFrame,
    candidates: pl.DataFrame,
    similarity: pl.DataFrame,
    llm_verdicts: pl.DataFrame,
    decisions: pl.DataFrame,
    calls: pl.DataFrame,
    windows: pl.DataFrame,
    lengths: pl.DataFrame,
    known: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """Count what the report says of the verdicts of one query part.

    Args:
        config: the tiers.
        queries: dataset, query_id, split.
        candidates: of the part.
        similarity: the verdicts of similarity.
        llm_verdicts: those of the other tiers.
        decisions: the decisions.
        calls: of the tiers.
        windows: of the tiers' verdicts.
        lengths: LENGTHS of the candidates.
        known: a table of KNOWN, of all parts; None if nothing is known.

    Returns:
        `tallies`: TALLIES. `scores`: SCORES. `relevant`: RELEVANT_BY_QUERY. `errors`: ERRORS_BY_QUERY. `dots`: DOTS.
        `call_sums`: CALL_SUMS.
    """
    asked = {tier: llm_verdicts.filter(pl.col("tier") == tier) for tier in config.tiers}
    judges = {SIMILARITY: similarity, **asked}
    last = asked[config.tiers[-1]] if config.tiers else VERDICTS.empty()
    dots, dotted = place_dots(similarity, last, decisions)
    errors, labelled = count_errors(
        judges,
        candidates=candidates,
        decisions=decisions,
        lengths=lengths,
        known=KNOWN.empty() if known is None else known,
    )
    found = [
        counted.tallies(counted.QUERIES, queries, "split"),
        *counted.count_verdicts(candidates, list(judges.items()), llm_verdicts),
        *counted.count_decisions(decisions),
        *counted.count_windows(windows, llm_verdicts, config.reads),
        *labelled,
        counted.tally(DOTTED, dotted),
    ]
    scores = [count_scores(tier, verdicts) for tier, verdicts in {**judges, CASCADE: decisions}.items()]
    return {
        "tallies": counted.together(found),
        "scores": pl.concat([SCORES.empty(), *scores]),
        "relevant": count_relevant(decisions, candidates),
        "errors": errors,
        "dots": dots,
        "call_sums": sum_calls(calls),
    }


def sum_calls(calls: pl.DataFrame) -> pl.DataFrame:
    """Add up the calls of each judge: CALL_SUMS, sorted."""
    tokens = [pl.sum("prompt_tokens"), pl.sum("output_tokens")]
    added = calls.group_by("judge").agg(pl.len().cast(pl.Int64).alias("calls"), *tokens)
    return added.select(*CALL_SUMS.columns).sort("judge")


def sum_up_edits(config: EditsConfig, *, edits: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Count what relabelling changed in one query part, and shortlist the queries that can be examples.

    Args:
        config: how many examples there are.
        edits: dataset, query_id, to; of the treatment `relabel`.

    Returns:
        `tallies`: TALLIES. `shortlist`: CHOSEN.
    """
    relabelled = edits.filter(pl.col("to") == "positive")
    shortlist = pl.DataFrame(first_queries(relabelled, config.examples), schema=CHOSEN.columns, orient="row")
    return {"tallies": counted.together(counted.count_edits(edits)), "shortlist": shortlist}


def first_queries(pairs: pl.DataFrame, limit: int) -> list[tuple[str, str]]:
    """Return up to `limit` queries, by dataset and id, in the order of the hashes of their ids."""
    return sorted(set(pairs.select(_QUERY).iter_rows()), key=lambda key: (hash_text("/".join(key)), key))[:limit]
