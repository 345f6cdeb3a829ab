"""The rows of the comparison of judges: which judge on which pairs, the fusion, and the printed table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from benchmarks.judge_measures import (
    Scored,
    auc,
    difference,
    fit,
    logit,
    measure,
    score_held_out,
    within_query_auc,
)

ALL, HARD, HELD_OUT = "all", "hard", "hard, other queries"
SIMILARITY, CENTRED = "similarity", " less its mean"
COSINES = ("to_query", "to_positive", "positive_to_query")
# The fits and their features: log-odds of the judges, and cosines. `cascade` has the features that `decide` adds up in
# a curation. The fusion uses a judge's log-odds minus their mean over the pairs of the query. The reason: how often the
# 1.5B model says Yes depends more on the query than on the passage, and not on the number of relevant passages.
FITTED: Mapping[str, tuple[str, ...]] = {
    "yes_no, calibrated": ("yes_no",),
    "cascade": (SIMILARITY, "yes_no"),
    "fusion": (*COSINES, "yes_no" + CENTRED, "listwise" + CENTRED),
}
_PAIR = ["dataset", "query_id", "doc_id"]
_COMPARED: dict[str, Callable[[Scored], float]] = {"auc": auc, "within_query_auc": within_query_auc}


@dataclass(frozen=True)
class Judged:
    """The scores of the judges.

    similarity: all pairs with cosines, score and label. answers: by LLM judge, verdicts on the hard pairs.
    tuned_on: queries on which prompts were chosen.
    """

    similarity: pl.DataFrame
    answers: Mapping[str, pl.DataFrame]
    tuned_on: frozenset[str]


def compare_rows(judged: Judged, costs: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Measure every judge on every set of pairs, and compare each fit with its best member."""
    hard = _join(judged)
    features = make_features(hard, list(judged.answers))
    relevant, query = hard["relevant"].to_numpy(), hard["query_id"].to_numpy()
    values = {name: features.select(columns).to_numpy() for name, columns in FITTED.items()}
    hard = hard.with_columns(pl.Series(name, score_held_out(value, relevant, query)) for name, value in values.items())
    members = [SIMILARITY, *judged.answers]
    other = hard.filter(~pl.col("query_id").is_in(sorted(judged.tuned_on)))
    everything = judged.similarity.rename({"score": SIMILARITY})
    rows = [_row(SIMILARITY, ALL, everything, {})]
    rows += [_row(name, HARD, hard, costs.get(name, {})) for name in (*members, *FITTED)]
    rows += [_row(name, HELD_OUT, other, {}) for name in (*members, *FITTED)]
    sets = {HARD: hard, HELD_OUT: other}
    fits = {name: fit(value, relevant) for name, value in values.items()}
    return {
        "pairs": {name: _describe(frame) for name, frame in ({ALL: everything} | sets).items()},
        "rows": rows,
        "fitted": {
            name: {
                "weights": dict(zip(FITTED[name], found.weights.round(3).tolist(), strict=True)),
                "bias": round(found.bias, 3),
                "gain": {pairs: _gain(frame, name, members) for pairs, frame in sets.items()},
            }
            for name, found in fits.items()
        },
    }


def make_features(hard: pl.DataFrame, judges: Sequence[str]) -> pl.DataFrame:
    """Return cosines, log-odds, and log-odds minus their mean over the query; a missing score counts as the mean."""
    columns = [
        pl.Series(name, logit(hard[name].cast(pl.Float64).to_numpy()), nan_to_null=True)
        for name in (SIMILARITY, *judges)
    ]
    centred = [
        (pl.col(name) - pl.col(name).mean().over("query_id")).fill_null(0.0).alias(name + CENTRED) for name in judges
    ]
    return (
        hard.select("query_id", *COSINES)
        .with_columns(columns)
        .with_columns(centred)
        .with_columns(pl.col(name).fill_null(pl.col(name).mean()) for name in judges)
        .drop("query_id")
    )


def scored(frame: pl.DataFrame, name: str) -> Scored:
    """Return the pairs that a judge has scored."""
    known = frame.drop_nulls(name).sort(_PAIR)
    return Scored(known[name].to_numpy(), known["relevant"].to_numpy(), known["query_id"].to_numpy())


def _join(judged: Judged) -> pl.DataFrame:
    first, *_ = judged.answers.values()
    hard = judged.similarity.rename({"score": SIMILARITY}).join(first.select(_PAIR), on=_PAIR, how="semi")
    for name, verdicts in judged.answers.items():
        hard = hard.join(verdicts.select(*_PAIR, pl.col("score").alias(name)), on=_PAIR, how="left")
    return hard.sort(_PAIR)


def _row(name: str, pairs: str, frame: pl.DataFrame, costs: Mapping[str, float]) -> dict[str, Any]:
    unparsed = frame[name].null_count() / frame.height
    return {"judge": name, "pairs": pairs, **measure(scored(frame, name)), "unparsed": round(unparsed, 4), **costs}


def _describe(frame: pl.DataFrame) -> dict[str, Any]:
    share = float(frame["relevant"].to_numpy().mean())
    return {"pairs": frame.height, "queries": frame["query_id"].n_unique(), "relevant": round(share, 4)}


def _gain(frame: pl.DataFrame, name: str, members: Sequence[str]) -> dict[str, Any]:
    """Return the fit minus its best member, in each measure, on the pairs that both have scored."""
    found = {}
    for measured, of in _COMPARED.items():
        best = max(members, key=lambda member: of(scored(frame, member)))
        both = frame.drop_nulls(best)
        found[measured] = {"best_member": best, **difference(scored(both, name), scored(both, best), of)}
    return found


def table(result: Mapping[str, Any]) -> str:
    """Write the rows as a Markdown table."""
    head = "| pairs | judge | AUC | within a query | κ at 0.5 | κ at best | Brier (base rate's) | ECE | unparsed |"
    lines = [head + " tokens in, out | s |", "|" + "---|" * 11]
    return "\n".join([*lines, *(_line(row) for row in result["rows"]), *_gains(result["fitted"])])


def _line(row: Mapping[str, Any]) -> str:
    quality = [_with_interval(row[name]) for name in ("auc", "within_query_auc", "kappa_half", "kappa_best")]
    tokens = f"{row['prompt_tokens']:,.0f}, {row['output_tokens']:,.0f}" if "seconds" in row else ""
    cells = [
        row["pairs"],
        row["judge"],
        *quality,
        f"{_with_interval(row['brier'])}, {row['brier_base_rate']['value']:.3f}",
        _with_interval(row["calibration_error"]),
        f"{row['unparsed']:.1%}",
        tokens,
        f"{row['seconds']:.0f}" if "seconds" in row else "",
    ]
    return "| " + " | ".join(cells) + " |"


def _with_interval(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['value']:.3f} ({low:.2f} to {high:.2f})"


def _gains(fitted: Mapping[str, Any]) -> Iterator[str]:
    for name, found in fitted.items():
        yield f"{name}: weights {found['weights']}, bias {found['bias']}"
        for pairs, gains in found["gain"].items():
            for measured, gain in gains.items():
                yield f"  less {gain['best_member']} in {measured}, {pairs}: {_with_interval(gain)}"
