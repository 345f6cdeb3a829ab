"""Count the figures of a curation, for page, terminal and JSON, and describe them in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from tasks.clustered import share_of_groups
from tasks.formatting import percent, signed
from tasks.rejects import with_counts
from tasks.report.describe import PASSAGE_CHARS
from tasks.report.parts import tallies
from tasks.report.parts.add_up import Sums
from tasks.report.parts.sum_up import CASCADE
from tasks.schemas import TREATMENTS
from tasks.statistics import NOT_DEFINED, Interval
from tasks.training.evaluate import PAIR, Comparison, choose_pair, compare

NDCG = "nDCG@10"
MODELS = ("base", *TREATMENTS)
RERANKERS = tuple(f"reranker-{name}" for name in TREATMENTS)  # that were trained on a treatment

NOTHING_KNOWN = (0.0, 1.0)

_QUERY = ["dataset", "query_id"]


@dataclass(frozen=True)
class Figures:
    """The figures of a curation.

    states: number of decisions by state, for all four states.
    found: candidates that were relabelled as positives. They are fewer than the relevant ones if a query was dropped,
        or if a text has several ids.
    known, known_found: candidates known in advance to be false negatives, and those of them that the cascade found.
    known_recall, known_precision: of the decisions, counted on the known ones, with 95% intervals by query.
    means: mean score by (measure, model), over the held-out queries. pair: the two models that are compared.
    share_interval: 95% interval of the share of false negatives among the candidates, clustered by query; 0 to 1 where
        there is nothing.
    imported: candidates whose verdict is from a table.
    labelled: candidates that the source itself calls irrelevant; no judge is asked about them.
    """

    queries: int
    training_queries: int
    test_queries: int
    dev_queries: int
    passages: int
    candidates: int
    states: Mapping[str, int]
    queries_with_relevant: int
    found: int
    removed: int
    dropped: int
    known: int
    known_found: int
    llm_pairs: int
    llm_calls: int
    prompt_tokens: int
    output_tokens: int
    rejected: int
    seconds: float
    evaluated_queries: int
    means: Mapping[tuple[str, str], float] = field(default_factory=dict)
    pair: tuple[str, str] = PAIR
    share_interval: tuple[float, float] = NOTHING_KNOWN
    imported: int = 0
    labelled: int = 0
    known_recall: Interval = NOT_DEFINED
    known_precision: Interval = NOT_DEFINED

    @property
    def relevant(self) -> int:
        """Return the number of candidates decided to be relevant: the false negatives."""
        return self.states["relevant"]

    @property
    def share(self) -> float | None:
        """Return the share of false negatives among the candidates; None without candidates."""
        return self.relevant / self.candidates if self.candidates else None

    @property
    def llm_share(self) -> float | None:
        """Return the share of the candidates that an LLM was asked about; None without candidates."""
        return self.llm_pairs / self.candidates if self.candidates else None

    def mean(self, model: str, measure: str = NDCG) -> float | None:
        """Return the mean score of a model; None if it was not evaluated."""
        return self.means.get((measure, model))

    def as_dict(self) -> dict[str, Any]:
        """Return the figures that the terminal prints and scripts read."""
        return {
            "queries": self.queries,
            "passages": self.passages,
            "candidates": self.candidates,
            "verdicts": dict(self.states),
            "false_negatives": {
                "share": self.share,
                **(
                    {}
                    if self.share is None
                    else dict(zip(("low", "high"), map(_rounded, self.share_interval), strict=True))
                ),
            },
            "known_false_negatives": self.known,
            "known_found": self.known_found,
            "known_recall": self.known_recall.rounded(),
            "known_precision": self.known_precision.rounded(),
            "found": self.found,
            "llm_calls": self.llm_calls,
            "ndcg10": {
                model: _rounded(self.mean(model))
                for model in TREATMENTS
                if model in PAIR or self.mean(model) is not None
            },
        }


def count_figures(
    *,
    sums: Sums,
    counts: pl.DataFrame,
    agreement: pl.DataFrame,
    scores: pl.DataFrame,
    rejects: pl.DataFrame,
    costs: pl.DataFrame,
) -> Figures:
    """Count the figures of a curation from the sums of its query parts and from tables; any may be empty."""
    known = next(iter(agreement.filter(pl.col("tier") == CASCADE).to_dicts()), {})
    found = sums.relevant.filter(pl.col("relevant") > 0)
    return Figures(
        queries=sums.count(tallies.QUERIES),
        training_queries=sums.count(tallies.QUERIES, "train"),
        test_queries=sums.count(tallies.QUERIES, "test"),
        dev_queries=sums.count(tallies.QUERIES, "dev"),
        passages=int(counts.filter(pl.col("subject") == PASSAGE_CHARS)["count"].sum()),
        candidates=sums.count(tallies.CANDIDATES),
        states=sums.states(CASCADE),
        queries_with_relevant=int(found["queries"].sum()),
        found=sums.count(tallies.EDITED, kind="positive"),
        removed=sums.count(tallies.EDITED, kind="removed"),
        dropped=sums.count(tallies.DROPPED),
        known=known.get("known", 0),
        known_found=known.get("known_found", 0),
        known_recall=Interval(*(known.get(name) for name in ("recall", "recall_low", "recall_high"))),
        known_precision=Interval(*(known.get(name) for name in ("precision", "precision_low", "precision_high"))),
        llm_pairs=sums.count(tallies.ASKED),
        imported=sums.count(tallies.IMPORTED_PAIRS),
        labelled=sums.count(tallies.LABELLED),
        llm_calls=int(sums.calls["calls"].sum()),
        prompt_tokens=int(sums.calls["prompt_tokens"].sum()),
        output_tokens=int(sums.calls["output_tokens"].sum()),
        rejected=int(with_counts(rejects)["count"].sum()),
        seconds=float(costs["seconds"].sum()),
        evaluated_queries=scores.select(_QUERY).n_unique(),
        means=_means(scores),
        pair=choose_pair(scores),
        share_interval=share_interval(sums.relevant),
    )


def conclude(figures: Figures, comparisons: Sequence[Comparison]) -> list[str]:
    """Return the conclusions, one sentence each: what was found, missed and spent, and what was not measured."""
    return [
        _say_found(figures),
        _say_trust(figures),
        _say_cost(figures),
        _say_training(figures, comparisons),
        *_say_losses(figures),
    ]


def say_people(people: pl.DataFrame) -> list[str]:
    """Return a sentence on the pairs that people decided and how far the cascade agrees; empty without labels.

    `people` is a table of `tasks.schemas.PEOPLE`.
    """
    found = people.filter(pl.col("tier") == CASCADE).to_dicts()
    if not found:
        return []
    row = found[0]
    said = (
        f"People decided {row['labelled']:,} of the pairs; on {row['contradicted']:,} of them the judges had said the "
        f"opposite, and people were unsure of {row['unsure']:,}."
    )
    if row["kappa"] is None or row["kappa_low"] is None:
        return [f"{said} Too few of them were drawn by lot to measure the judges by."]
    figures = [f"kappa {row['kappa']:.2f} ({row['kappa_low']:.2f} to {row['kappa_high']:.2f})"]
    for name in ("precision", "recall"):
        if row[name] is not None:
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            figures.append(f"{name} {percent(row[name])} ({percent(low)} to {percent(high)})")
    return [f"{said} The judges’ own decisions, against people’s: {', '.join(figures)}, 95% intervals."]


def _say_found(figures: Figures) -> str:
    if not figures.candidates:
        return "Nothing was judged: there are no candidates."
    low, high = figures.share_interval
    return (
        f"{figures.relevant:,} of {figures.candidates:,} candidates ({percent(figures.relevant / figures.candidates)}, "
        f"95% interval {percent(low)} to {percent(high)}) were judged to be false negatives; they belong to "
        f"{figures.queries_with_relevant:,} of {figures.training_queries:,} training queries, and {figures.found:,} "
        "were relabelled as positives."
    )


def _say_trust(figures: Figures) -> str:
    if figures.known_recall.value is None:
        return (
            "How many were missed was not measured: no false negatives are known beforehand. "
            "Label the sample sheet to learn precision and recall."
        )
    said = (
        f"Of {figures.known:,} false negatives known beforehand the cascade found {figures.known_found:,}: "
        f"recall {_say_interval(figures.known_recall)}."
    )
    if figures.known_precision.value is None:
        return said
    return (
        f"{said} Its precision is at least {_say_interval(figures.known_precision)}: a relevant candidate that nobody "
        "knew of counts as an error. The intervals are by query."
    )


def _say_interval(share: Interval) -> str:
    """Write a share with its interval: `76% (95% interval 61% to 86%)`."""
    value, low, high = (percent(x or 0) for x in share)
    return f"{value} (95% interval {low} to {high})"


def _say_cost(figures: Figures) -> str:
    known = _say_known(figures)
    left = figures.candidates - figures.imported - figures.labelled - figures.llm_pairs
    rest = "; no judge but similarity was asked about the rest" if left > 0 else ""
    if not figures.llm_pairs:
        return f"{known}No language model was asked: similarity alone decided{' the rest' if known else ''}."
    if not figures.llm_calls:  # every call is listed, those that were recalled too
        return (
            f"{known}The verdicts on {figures.llm_pairs:,} candidates ({percent(figures.llm_share or 0)}) were read "
            f"from files, and no language model was asked{rest}."
        )
    return (
        f"{known}The language model was asked about {figures.llm_pairs:,} candidates "
        f"({percent(figures.llm_share or 0)}) in {figures.llm_calls:,} calls and read {figures.prompt_tokens:,} tokens"
        f"{rest}."
    )


def _say_known(figures: Figures) -> str:
    """Say which candidates no judge was asked about, each in a sentence with a blank behind it."""
    said = {
        "have imported verdicts": figures.imported,
        "are called irrelevant by the source itself, and stay negatives": figures.labelled,
    }
    return "".join(
        f"{count:,} candidates ({percent(count / figures.candidates)}) {what}. "
        for what, count in said.items()
        if count
    )


def _say_training(figures: Figures, comparisons: Sequence[Comparison]) -> str:
    found = next((c for c in comparisons if c.measure == NDCG), None)
    baseline, treatment = ({"relabel": "relabelled"}.get(name, name) for name in figures.pair)
    other = (f"and on the {baseline} data", f"instead of the {baseline} data")
    if baseline == MODELS[0]:
        other = ("data and no training at all", "data instead of no training at all")
    if found is None and not figures.means:
        return "Retraining was not evaluated, so whether the new labels help a model is not known."
    if found is None:
        named = sorted({model for _, model in figures.means})
        return f"Nothing is compared in {NDCG}: {', '.join(named)} was evaluated, and a pair of models is needed."
    if found.low is None or found.high is None:
        return (
            f"{NDCG} differs by {signed(found.difference)} on {found.queries:,} held-out queries, on each alike: no "
            "interval can be given."
        )
    span = f"({signed(found.low)} to {signed(found.high)}, 95%, {found.queries:,} held-out queries)"
    if not found.is_clear:
        return (
            f"No difference in {NDCG} between training on the {treatment} {other[0]} could be shown: "
            f"{signed(found.difference)} {span}."
        )
    verb = "raised" if found.difference > 0 else "lowered"
    return f"Training on the {treatment} {other[1]} {verb} {NDCG} by {abs(found.difference):.3f} {span}."


def say_rerankers(scores: pl.DataFrame) -> list[str]:
    """Compare the reranker trained on the first treatment that is there with the one trained on `default`."""
    there = set(scores["model"].unique())
    others = [name for name in (f"reranker-{PAIR[1]}", *RERANKERS) if name in there and name != RERANKERS[0]]
    if RERANKERS[0] not in there or not others:
        return []
    found = next((c for c in compare(scores, RERANKERS[0], others[0]) if c.measure == NDCG), None)
    if found is None:
        return []
    span = "no interval" if found.low is None or found.high is None else f"{signed(found.low)} to {signed(found.high)}"
    return [
        f"Of two rerankers of the same candidates, {others[0]} has {NDCG} {found.treatment:.3f} and {RERANKERS[0]} "
        f"{found.baseline:.3f}: {signed(found.difference)} ({span}, 95%, {found.queries:,} held-out queries)."
    ]


def _say_losses(figures: Figures) -> list[str]:
    said = []
    if figures.states["unparsed"]:
        said.append(
            f"{figures.states['unparsed']:,} candidates have no verdict because the answer could not be read; "
            "they count neither as relevant nor as not relevant."
        )
    if figures.dropped:
        subject = "1 query was" if figures.dropped == 1 else f"{figures.dropped:,} queries were"
        said.append(f"{subject} dropped whole, having too many false negatives to be clear.")
    return said


def share_interval(relevant: pl.DataFrame) -> tuple[float, float]:
    """Return the 95% interval of the share of relevant pairs, clustered by query; 0 to 1 for no pairs.

    `relevant` is a table of `tasks.summaries.RELEVANT_BY_QUERY`: queries with the same counts are one row.
    """
    queries = relevant["queries"].to_numpy()
    found, pairs = (np.repeat(relevant[name].to_numpy().astype(float), queries) for name in ("relevant", "pairs"))
    low, high = share_of_groups(found, pairs)[1:]
    return NOTHING_KNOWN if low is None or high is None else (low, high)


def _means(scores: pl.DataFrame) -> dict[tuple[str, str], float]:
    """Return the mean over queries of the mean over seeds, by (measure, model)."""
    per_query = scores.group_by("measure", "model", *_QUERY).agg(pl.col("value").mean()).sort(pl.all())
    means = per_query.group_by("measure", "model", maintain_order=True).agg(pl.col("value").mean())
    return {(measure, model): value for measure, model, value in means.iter_rows()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
